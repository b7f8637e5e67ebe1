"""Mails (eml): the subject as heading, sender and recipients as lines, the body, then the attachments."""

import email
import re
from collections.abc import Iterator
from email.errors import HeaderParseError, MessageError
from email.header import decode_header
from email.message import Message
from email.utils import parsedate_to_datetime

from services.ingestion.domain import File, ParsedText, Rejected, RejectionReason
from services.ingestion.formats.attachments import Attachment, add_attachments, file_attachment
from services.ingestion.formats.budget import Budget
from services.ingestion.formats.marks import parse_marks, strip_noncharacters
from services.ingestion.formats.office import html_to_markdown
from services.ingestion.formats.text import decode

SHOWN = ("From", "To", "Cc", "Date")
MAX_HEADER = 4_000
MAX_PARTS = 2_000
MULTIPART = re.compile(rb"^content-type:\s*multipart/", re.IGNORECASE | re.MULTILINE)
MAX_MULTIPARTS = 200
BROKEN = (MessageError, ValueError, LookupError, TypeError, AttributeError, AssertionError)
ENCRYPTED_TYPES = ("multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime")
SIGNATURES = ("application/pgp-signature", "application/pkcs7-signature", "application/x-pkcs7-signature")


def parse_mail(file: File, budget: Budget) -> ParsedText:
    """A mail and its attachments as Markdown."""
    try:
        return _parse(file, budget)
    except RecursionError:
        raise Rejected(RejectionReason.TOO_LARGE, "The mail nests too deeply. Publish its parts.", "eml") from None
    except BROKEN:
        raise Rejected(RejectionReason.CORRUPT, "The mail is damaged. Export it again.", "eml") from None


def _parse(file: File, budget: Budget) -> ParsedText:
    # The library looks in every line for the end of every enclosing part, so nesting makes it slow.
    if sum(1 for _ in MULTIPART.finditer(file.data)) > MAX_MULTIPARTS:
        raise Rejected(RejectionReason.TOO_LARGE, "The mail has too many nested parts. Publish them separately.", "eml")
    message = email.message_from_bytes(file.data)
    if not message.keys():
        raise Rejected(RejectionReason.CORRUPT, "The mail has no headers. Export it again.", "eml")
    bodies: list[Message] = []
    attachments: list[Message] = []
    for number, part in enumerate(_leaves(message)):
        if number > MAX_PARTS:
            budget.take("attachments", budget.attachments + 1, "eml")
        (bodies if _is_body(part) else attachments).append(part)
    body = "\n\n".join(filter(None, map(_part_text, bodies)))
    lines = [f"{name}: {strip_noncharacters(value)}" for name in SHOWN if (value := _header(message, name))]
    text = add_attachments(body, (_attachment(part) for part in attachments if not _is_decoration(part)), budget, "eml")
    subject = _header(message, "Subject")
    heading = [f"# {strip_noncharacters(subject)}"] if subject else []
    return parse_marks("\n\n".join([*heading, "\n".join(lines), text]), "eml")


def _leaves(part: Message) -> Iterator[Message]:
    """Parts with content, in order. Of alternatives, the plain text if it is not empty, or else the last."""
    kind = part.get_content_type()
    if kind in ENCRYPTED_TYPES and part.get_param("smime-type") != "signed-data":
        raise Rejected(RejectionReason.ENCRYPTED, "The mail is encrypted. Publish it decrypted.", "eml")
    children = _children(part)
    if kind == "message/rfc822" or not children:
        yield part
    elif kind == "multipart/alternative":
        plain = [child for child in children if child.get_content_type() == "text/plain" and _part_text(child).strip()]
        for child in plain[:1] or children[-1:]:
            yield from _leaves(child)
    else:
        for child in children:
            yield from _leaves(child)


def _children(part: Message) -> list[Message]:
    payload = part.get_payload()
    return [child for child in payload if isinstance(child, Message)] if isinstance(payload, list) else []


def _is_body(part: Message) -> bool:
    """True for text that is not an attachment; also for that of a mail whose boundary is missing."""
    is_text = part.get_content_type() in ("text/plain", "text/html") or _is_undivided(part)
    return is_text and not (part.get_content_disposition() == "attachment" or part.get_filename())


def _is_undivided(part: Message) -> bool:
    return part.get_content_maintype() == "multipart" and isinstance(part.get_payload(), str)


def _is_decoration(part: Message) -> bool:
    """True for signatures and for pictures within the body."""
    kind = part.get_content_type()
    is_inline = part.get_content_disposition() == "inline" or "Content-ID" in part
    return kind in SIGNATURES or (kind.startswith("image/") and is_inline)


def _attachment(part: Message) -> Attachment:
    name = _decode_words(part.get_filename() or "")
    if part.get_content_type() == "message/rfc822" and (payload := _children(part)):
        inner = payload[0]
        return Attachment(
            name or _header(inner, "Subject"), lambda budget: parse_mail(File(inner.as_bytes(), "mail.eml"), budget)
        )
    charset = part.get_content_charset()
    kind = part.get_content_type() + (f"; charset={charset}" if charset else "")
    return file_attachment(File(_bytes(part), name, kind))


def _part_text(part: Message) -> str:
    text = decode(_bytes(part), str(part.get_content_charset() or ""))
    return html_to_markdown(text) if part.get_content_subtype() == "html" else text


def _bytes(part: Message) -> bytes:
    raw = part.get_payload(decode=True)
    return raw if isinstance(raw, bytes) else b""


def _header(message: Message, name: str) -> str:
    """A header decoded to one line, from at most MAX_HEADER characters."""
    raw = next((value for key, value in message.raw_items() if key.lower() == name.lower()), "")
    value = _decode_words(decode(str(raw)[:MAX_HEADER].encode("utf-8", "surrogateescape")))
    if name != "Date":
        return value
    try:
        return parsedate_to_datetime(value).strftime("%-d %B %Y")
    except (ValueError, TypeError, IndexError, OverflowError):
        return value


def _decode_words(value: str) -> str:
    short = re.sub(r"\r?\n(?=[ \t])", "", value[:MAX_HEADER])
    try:
        text = "".join(_piece(*piece) for piece in decode_header(short))
    except (HeaderParseError, ValueError):
        text = short
    return " ".join(text.split())


def _piece(piece: str | bytes, charset: str | None) -> str:
    """A decoded piece of a header. Bytes without a charset are characters that the header contained unencoded."""
    if isinstance(piece, str):
        return piece
    return decode(piece, charset) if charset else piece.decode("raw-unicode-escape")
