"""Outlook mails (msg, a compound file): the same Markdown as for other mails."""

import codecs
import datetime
import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from olefile import OleFileIO

from services.ingestion.domain import File, ParsedText, Rejected, RejectionReason
from services.ingestion.formats.archive import BROKEN
from services.ingestion.formats.attachments import Attachment, add_attachments, file_attachment
from services.ingestion.formats.budget import Budget
from services.ingestion.formats.marks import parse_marks, strip_noncharacters
from services.ingestion.formats.office import html_to_markdown
from services.ingestion.formats.text import CHARSET, decode

PROPERTIES = "__properties_version1.0"
# A message's properties follow a header, which is shorter in an attached message.
HEADER_BYTES, INNER_HEADER_BYTES, ENTRY = 32, 24, struct.Struct("<HHI8s")
SUBJECT, SENDER, SENDER_ADDRESS, SMTP_ADDRESS, TO, CC = 0x0037, 0x0C1A, 0x0C1F, 0x5D01, 0x0E04, 0x0E03
BODY, HTML, RTF, SENT, CODE_PAGE = 0x1000, 0x1013, 0x1009, 0x0039, 0x3FFD
DATA, LONG_NAME, SHORT_NAME, MIME_TYPE, CONTENT_ID = 0x3701, 0x3707, 0x3704, 0x370E, 0x3712
EPOCH = datetime.datetime(1601, 1, 1, tzinfo=datetime.UTC)
UTF_8_PAGE = 65001
RTF_ONLY = "The mail's body is RTF only, which is not supported. Save it as HTML, plain text or eml."


@dataclass(frozen=True)
class OutlookStorage:
    """A message or an attachment within the file: its path, and the charset of its 8-bit strings."""

    ole: OleFileIO
    path: tuple[str, ...]
    charset: str

    def stream(self, tag: int, kind: int) -> bytes:
        """A property's bytes; empty if the property is missing."""
        path = [*self.path, f"__substg1.0_{tag:04X}{kind:04X}"]
        return bytes(self.ole.openstream(path).read()) if self.ole.exists(path) else b""

    def has(self, tag: int) -> bool:
        """True if there is such a property, as a string or as bytes."""
        return any(
            self.ole.exists([*self.path, f"__substg1.0_{tag:04X}{kind:04X}"]) for kind in (0x001E, 0x001F, 0x0102)
        )

    def string(self, tag: int) -> str:
        """A string property; empty if the property is missing."""
        if wide := self.stream(tag, 0x001F):
            return wide.decode("utf-16-le", errors="replace").strip("\0")
        return decode(narrow, self.charset).strip("\0") if (narrow := self.stream(tag, 0x001E)) else ""


def parse_msg(file: File, budget: Budget) -> ParsedText:
    """An Outlook mail and its attachments as Markdown."""
    try:
        ole = OleFileIO(io.BytesIO(file.data))
        return _message(ole, (), budget)
    except BROKEN:
        raise Rejected(RejectionReason.CORRUPT, "The mail is damaged or truncated. Save it again.", "msg") from None


def _message(ole: OleFileIO, path: tuple[str, ...], budget: Budget) -> ParsedText:
    numbers = _numbers(ole, path)
    storage = OutlookStorage(ole, path, _charset(numbers.get(CODE_PAGE, b"")))
    sender = " ".join(filter(None, (storage.string(SENDER), _address(storage))))
    sent = _date(numbers.get(SENT, b""))
    shown = (("From", sender), ("To", storage.string(TO)), ("Cc", storage.string(CC)), ("Date", sent))
    lines = [f"{name}: {' '.join(value.split())}" for name, value in shown if value.strip()]
    subject = " ".join(storage.string(SUBJECT).split())
    text = add_attachments(_body(storage), _attachments(storage), budget, "msg")
    head = strip_noncharacters("\n\n".join([*([f"# {subject}"] if subject else []), "\n".join(lines)]))
    return parse_marks(f"{head}\n\n{text}", "msg")


def _body(storage: OutlookStorage) -> str:
    if any(map(str.isalnum, plain := storage.string(BODY))):
        return plain
    html = storage.stream(HTML, 0x0102)
    meta = CHARSET.search(html[:2048].decode("ascii", errors="replace"))
    text = html_to_markdown(decode(html, meta[1] if meta else storage.charset) if html else storage.string(HTML))
    # A mail without text has an empty body property next to its RTF; a mail whose text is only in the RTF has no body property.
    if not any(map(str.isalnum, text)) and not storage.has(BODY) and storage.has(RTF):
        raise Rejected(RejectionReason.UNSUPPORTED_FORMAT, RTF_ONLY, "msg")
    return text


def _attachments(storage: OutlookStorage) -> Iterator[Attachment]:
    depth = len(storage.path)
    names = {
        entry[depth]
        for entry in storage.ole.listdir()
        if tuple(entry[:depth]) == storage.path and entry[depth].startswith("__attach_version1.0_")
    }
    for name in sorted(names):
        attachment = OutlookStorage(storage.ole, (*storage.path, name), storage.charset)
        mime_type, inner = attachment.string(MIME_TYPE), (*attachment.path, f"__substg1.0_{DATA:04X}000D")
        if mime_type.startswith("image/") and attachment.string(CONTENT_ID):
            continue
        title = attachment.string(LONG_NAME) or attachment.string(SHORT_NAME)
        if storage.ole.exists([*inner, PROPERTIES]):
            yield Attachment(title or "mail", partial(_message, storage.ole, inner))
        else:
            yield file_attachment(File(attachment.stream(DATA, 0x0102), title, mime_type))


def _numbers(ole: OleFileIO, path: tuple[str, ...]) -> dict[int, bytes]:
    """The eight bytes of every property of fixed width, by tag."""
    data = ole.openstream([*path, PROPERTIES]).read()
    body = data[INNER_HEADER_BYTES if path else HEADER_BYTES :]
    whole = body[: len(body) // ENTRY.size * ENTRY.size]
    return {tag: value for _, tag, _, value in ENTRY.iter_unpack(whole)}


def _charset(value: bytes) -> str:
    page = int.from_bytes(value[:4], "little")
    name = "utf-8" if page == UTF_8_PAGE else f"cp{page}"
    try:
        return codecs.lookup(name).name if page else ""
    except LookupError:
        return ""


def _date(value: bytes) -> str:
    ticks = int.from_bytes(value, "little")
    try:
        return (EPOCH + datetime.timedelta(microseconds=ticks // 10)).strftime("%-d %B %Y") if ticks else ""
    except OverflowError:
        return ""


def _address(storage: OutlookStorage) -> str:
    address = storage.string(SMTP_ADDRESS) or storage.string(SENDER_ADDRESS)
    return f"<{address}>" if "@" in address else ""
