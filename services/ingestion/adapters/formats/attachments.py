"""What hangs on a mail: every attachment read by its own format, as a section under the mail's words."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from services.ingestion.adapters.formats.budget import Budget
from services.ingestion.adapters.formats.marks import MARK, foreign, marked, within
from services.ingestion.adapters.formats.read import read
from services.ingestion.domain import File, Parsed, Rejected, RejectionReason
from services.ingestion.spans import SpanKind

# A heading; marks of spans may stand before it.
HEADING = re.compile(rf"^(?P<marks>(?:{MARK.pattern})*)(?P<level>#{{1,6}})(?= )", re.MULTILINE)
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
    """The words, and after them the attachments within marks; Rejected where there are too many, or nothing has words."""
    sections = list(_sections(attachments, budget, format))
    if not any(map(str.isalnum, words)) and not any(text for _, text in sections):
        raise Rejected(RejectionReason.NO_TEXT, "The mail has no words of its own, and no attachment that has.", format)
    shown = [
        within(SpanKind.ATTACHMENT, number, f"{foreign(heading)}\n\n{text or '(not read)'}")
        for number, (heading, text) in enumerate(sections, 1)
    ]
    return "\n\n".join([foreign(words), *shown])


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
        if rejected.reason is RejectionReason.TOO_LARGE:
            raise
        return ""
    finally:
        budget.depth += 1
    if not any(map(str.isalnum, f"{parsed.prompt or ''}{parsed.text}")):
        return ""
    text = f"{parsed.prompt}\n\n{marked(parsed)}" if parsed.prompt else marked(parsed)
    # Its headings come below the attachment's own.
    return HEADING.sub(lambda match: match["marks"] + "#" * min(6, len(match["level"]) + 2), text)
