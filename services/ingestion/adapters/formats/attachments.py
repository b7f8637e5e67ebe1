"""What hangs on a mail: every attachment read by its own format, as a section under the mail's words."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from services.ingestion.adapters.formats.budget import Budget
from services.ingestion.adapters.formats.read import read
from services.ingestion.domain import File, Parsed, Reason, Rejected

HEADING = re.compile(r"^(#{1,6})(?= )", re.MULTILINE)
MAX_NAME = 200


@dataclass(frozen=True)
class Attachment:
    """A name, and how to read it: may raise Rejected."""

    name: str
    read: Callable[[Budget], Parsed]


def of_file(file: File) -> Attachment:
    """An attachment that is a file."""
    return Attachment(file.name, lambda budget: read(file, budget))


def with_attachments(words: str, attachments: Iterable[Attachment], budget: Budget, format: str) -> str:
    """The words, and after them the attachments; Rejected where there are too many, or nothing has words."""
    sections = list(_sections(attachments, budget, format))
    if not any(map(str.isalnum, words)) and not any(text for _, text in sections):
        raise Rejected(Reason.NO_TEXT, "The mail has no words of its own, and no attachment that has.", format)
    return "\n\n".join([words, *(f"{heading}\n\n{text or '(not read)'}" for heading, text in sections)])


def _sections(attachments: Iterable[Attachment], budget: Budget, format: str) -> Iterator[tuple[str, str]]:
    """Headings and texts; a text is empty where the attachment cannot be read."""
    for attachment in attachments:
        budget.take("attachments", 1, format)
        name = " ".join(attachment.name.split())[:MAX_NAME]
        yield f"## Attachment: {name}".rstrip(": "), _text(attachment, budget)


def _text(attachment: Attachment, budget: Budget) -> str:
    if budget.depth == 0:
        return ""
    budget.depth -= 1
    try:
        parsed = attachment.read(budget)
    except Rejected as rejected:
        if rejected.reason is Reason.TOO_LARGE:
            raise
        return ""
    finally:
        budget.depth += 1
    text = f"{parsed.prompt}\n\n{parsed.text}" if parsed.prompt else parsed.text
    # Its headings come below the attachment's own.
    return HEADING.sub(lambda match: "#" * min(6, len(match[1]) + 2), text) if any(map(str.isalnum, text)) else ""
