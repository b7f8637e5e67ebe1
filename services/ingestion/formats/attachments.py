"""Attachments of mails: each is parsed by its own format and becomes a section below the mail's body."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from services.ingestion.domain import File, ParsedText, Rejected, RejectionReason
from services.ingestion.formats.budget import Budget
from services.ingestion.formats.marks import MARK, add_marks, mark_span, strip_noncharacters
from services.ingestion.formats.read import read
from tailor.values import SpanKind

# A heading, possibly after marks of spans.
HEADING = re.compile(rf"^(?P<marks>(?:{MARK.pattern})*)(?P<level>#{{1,6}})(?= )", re.MULTILINE)
MAX_NAME = 200


@dataclass(frozen=True)
class Attachment:
    """A name and a function that parses the attachment, which may raise Rejected."""

    name: str
    read: Callable[[Budget], ParsedText]


def file_attachment(file: File) -> Attachment:
    """An attachment that is a file of any format."""
    return Attachment(file.name, lambda budget: read(file, budget))


def add_attachments(body: str, attachments: Iterable[Attachment], budget: Budget, format: str) -> str:
    """The body followed by the attachments, each between marks.

    Raises Rejected if there are too many attachments (TOO_LARGE) or neither the body nor an attachment has words (NO_TEXT).
    """
    sections = list(_sections(attachments, budget, format))
    if not any(map(str.isalnum, body)) and not any(text for _, text in sections):
        raise Rejected(RejectionReason.NO_TEXT, "The mail has no text, and neither do its attachments.", format)
    shown = [
        mark_span(SpanKind.ATTACHMENT, number, f"{strip_noncharacters(heading)}\n\n{text or '(not read)'}")
        for number, (heading, text) in enumerate(sections, 1)
    ]
    return "\n\n".join([strip_noncharacters(body), *shown])


def _sections(attachments: Iterable[Attachment], budget: Budget, format: str) -> Iterator[tuple[str, str]]:
    """Headings and texts. The text of an attachment that cannot be read is empty."""
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
    text = f"{parsed.prompt}\n\n{add_marks(parsed)}" if parsed.prompt else add_marks(parsed)
    # Moves its headings below the attachment's heading.
    return HEADING.sub(lambda match: match["marks"] + "#" * min(6, len(match["level"]) + 2), text)
