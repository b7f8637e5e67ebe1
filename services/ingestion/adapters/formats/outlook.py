"""Outlook's own mails: the same Markdown as of mails, out of a compound file."""

import codecs
import datetime
import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from olefile import OleFileIO

from services.ingestion.adapters.formats.archive import BROKEN
from services.ingestion.adapters.formats.attachments import Attachment, of_file, with_attachments
from services.ingestion.adapters.formats.budget import Budget
from services.ingestion.adapters.formats.marks import foreign, spanned
from services.ingestion.adapters.formats.office import html_to_markdown
from services.ingestion.adapters.formats.text import CHARSET, decode
from services.ingestion.domain import File, Parsed, Rejected, RejectionReason

PROPERTIES = "__properties_version1.0"
# The properties of a message begin after a header, which is shorter in one that is attached.
HEADER_BYTES, INNER_HEADER_BYTES, ENTRY = 32, 24, struct.Struct("<HHI8s")
SUBJECT, SENDER, SENDER_ADDRESS, SMTP_ADDRESS, TO, CC = 0x0037, 0x0C1A, 0x0C1F, 0x5D01, 0x0E04, 0x0E03
BODY, HTML, RTF, SENT, CODE_PAGE = 0x1000, 0x1013, 0x1009, 0x0039, 0x3FFD
DATA, LONG_NAME, SHORT_NAME, MIME_TYPE, CONTENT_ID = 0x3701, 0x3707, 0x3704, 0x370E, 0x3712
EPOCH = datetime.datetime(1601, 1, 1, tzinfo=datetime.UTC)
UTF_8_PAGE = 65001
RTF_ALONE = "The mail's words are in RTF alone, which is not read; save it as HTML, plain text or eml."


@dataclass(frozen=True)
class Storage:
    """A message or an attachment within the file: where it is, and what its 8-bit words are written in."""

    ole: OleFileIO
    path: tuple[str, ...]
    charset: str

    def stream(self, tag: int, kind: int) -> bytes:
        """A property's bytes; empty where there is none."""
        path = [*self.path, f"__substg1.0_{tag:04X}{kind:04X}"]
        return bytes(self.ole.openstream(path).read()) if self.ole.exists(path) else b""

    def has(self, tag: int) -> bool:
        """True where there is a property of letters or bytes."""
        return any(
            self.ole.exists([*self.path, f"__substg1.0_{tag:04X}{kind:04X}"]) for kind in (0x001E, 0x001F, 0x0102)
        )

    def words(self, tag: int) -> str:
        """A property of letters."""
        if wide := self.stream(tag, 0x001F):
            return wide.decode("utf-16-le", errors="replace").strip("\0")
        return decode(narrow, self.charset).strip("\0") if (narrow := self.stream(tag, 0x001E)) else ""


def parse_msg(file: File, budget: Budget) -> Parsed:
    """Markdown of an Outlook mail and of its attachments."""
    try:
        ole = OleFileIO(io.BytesIO(file.data))
        return _message(ole, (), budget)
    except BROKEN:
        raise Rejected(RejectionReason.CORRUPT, "The mail is damaged or cut off; save it again.", "msg") from None


def _message(ole: OleFileIO, path: tuple[str, ...], budget: Budget) -> Parsed:
    numbers = _numbers(ole, path)
    storage = Storage(ole, path, _charset(numbers.get(CODE_PAGE, b"")))
    sender = " ".join(filter(None, (storage.words(SENDER), _address(storage))))
    sent = _date(numbers.get(SENT, b""))
    shown = (("From", sender), ("To", storage.words(TO)), ("Cc", storage.words(CC)), ("Date", sent))
    lines = [f"{name}: {' '.join(value.split())}" for name, value in shown if value.strip()]
    subject = " ".join(storage.words(SUBJECT).split())
    text = with_attachments(_body(storage), _attachments(storage), budget, "msg")
    head = foreign("\n\n".join([*([f"# {subject}"] if subject else []), "\n".join(lines)]))
    return spanned(f"{head}\n\n{text}", "msg")


def _body(storage: Storage) -> str:
    if any(map(str.isalnum, plain := storage.words(BODY))):
        return plain
    html = storage.stream(HTML, 0x0102)
    meta = CHARSET.search(html[:2048].decode("ascii", errors="replace"))
    words = html_to_markdown(decode(html, meta[1] if meta else storage.charset) if html else storage.words(HTML))
    # A mail of no words has an empty body beside its RTF; one whose words are in the RTF alone has none.
    if not any(map(str.isalnum, words)) and not storage.has(BODY) and storage.has(RTF):
        raise Rejected(RejectionReason.UNSUPPORTED_FORMAT, RTF_ALONE, "msg")
    return words


def _attachments(storage: Storage) -> Iterator[Attachment]:
    depth = len(storage.path)
    names = {
        entry[depth]
        for entry in storage.ole.listdir()
        if tuple(entry[:depth]) == storage.path and entry[depth].startswith("__attach_version1.0_")
    }
    for name in sorted(names):
        each = Storage(storage.ole, (*storage.path, name), storage.charset)
        mime_type, inner = each.words(MIME_TYPE), (*each.path, f"__substg1.0_{DATA:04X}000D")
        if mime_type.startswith("image/") and each.words(CONTENT_ID):
            continue
        title = each.words(LONG_NAME) or each.words(SHORT_NAME)
        if storage.ole.exists([*inner, PROPERTIES]):
            yield Attachment(title or "mail", partial(_message, storage.ole, inner))
        else:
            yield of_file(File(each.stream(DATA, 0x0102), title, mime_type))


def _numbers(ole: OleFileIO, path: tuple[str, ...]) -> dict[int, bytes]:
    """The eight bytes of every property that has a fixed width, by its tag."""
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


def _address(storage: Storage) -> str:
    address = storage.words(SMTP_ADDRESS) or storage.words(SENDER_ADDRESS)
    return f"<{address}>" if "@" in address else ""
