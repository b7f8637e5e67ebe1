"""Zip archives, the container of Office files: the directory is checked before any entry is read."""

import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from services.ingestion.domain import Rejected, RejectionReason
from services.ingestion.formats.budget import Budget

ENCRYPTED_FLAG = 1
# Deflate compresses up to 1,032 to 1. Text in Office files seldom reaches 50 to 1.
MAX_RATIO = 200
RATIO_FROM_BYTES = 1024 * 1024
HEAD_BYTES = 64 * 1024
XML_NAME = re.compile(r"\.(?:xml|rels|vml)\Z", re.IGNORECASE)
# Declarations and comments may precede the root element. A document type, which can define entities, may not.
PROLOG = re.compile(rb"(?>\s|<\?.*?\?>|<!--.*?-->)*+<[A-Za-z_:\x80-\xff]", re.DOTALL)
BYTE_ORDER = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
# The exceptions that the libraries raise for damaged files.
BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    KeyError,
    ValueError,
    TypeError,
    IndexError,
    AttributeError,
    AssertionError,
    EOFError,
    OSError,
    OverflowError,
    NotImplementedError,
    RecursionError,
    SyntaxError,  # the base of the XML libraries' own errors
)


def check_archive(data: bytes, format: str, budget: Budget) -> list[str]:
    """The names of an archive's entries. Raises Rejected if it is damaged, encrypted, a zip bomb, or has XML with a document type."""
    with _reject_damaged(format), zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        if any(entry.flag_bits & ENCRYPTED_FLAG for entry in entries):
            raise Rejected(
                RejectionReason.ENCRYPTED, "The archive is encrypted. Publish it without a password.", format
            )
        budget.take("entries", len(entries), format)
        budget.take("expanded_bytes", sum(entry.file_size for entry in entries), format)
        if any(_is_bomb(entry) for entry in entries):
            raise Rejected(
                RejectionReason.TOO_LARGE, "The file is compressed more than is allowed. Save it again.", format
            )
        for entry in entries:
            if not entry.is_dir():
                _check_xml(archive, entry, format)
    return [entry.filename for entry in entries]


@contextmanager
def _reject_damaged(format: str) -> Iterator[None]:
    try:
        yield
    except BROKEN:
        raise Rejected(RejectionReason.CORRUPT, "The file is damaged or truncated. Export it again.", format) from None


def _is_bomb(entry: zipfile.ZipInfo) -> bool:
    return entry.file_size > max(RATIO_FROM_BYTES, MAX_RATIO * entry.compress_size)


def _check_xml(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, format: str) -> None:
    with archive.open(entry) as part:
        head = part.read(HEAD_BYTES)
    for mark in BYTE_ORDER:
        head = head.removeprefix(mark)
    # Without its zero bytes, UTF-16 is readable enough for the checks.
    plain = head.replace(b"\0", b"").lstrip()
    is_xml = bool(XML_NAME.search(entry.filename)) or plain.startswith((b"<?xml", b"<!DOCTYPE"))
    if is_xml and not entry.filename.lower().endswith(".svg") and plain and not PROLOG.match(plain):
        raise Rejected(
            RejectionReason.CORRUPT,
            "Its XML is damaged or declares a document type, which is not allowed. Save it again.",
            format,
        )
