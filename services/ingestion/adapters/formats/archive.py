"""Zip files, as which Office writes its own: what they hold is checked before any part of them is read."""

import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from services.ingestion.adapters.formats.budget import Budget
from services.ingestion.domain import Rejected, RejectionReason

ENCRYPTED_FLAG = 1
# Deflate packs up to 1,032 to 1; text of Office seldom reaches 50.
MAX_RATIO = 200
RATIO_FROM_BYTES = 1024 * 1024
HEAD_BYTES = 64 * 1024
XML_NAME = re.compile(r"\.(?:xml|rels|vml)\Z", re.IGNORECASE)
# What may stand before the root element: declarations and comments, never a document type with its entities.
PROLOG = re.compile(rb"(?>\s|<\?.*?\?>|<!--.*?-->)*+<[A-Za-z_:\x80-\xff]", re.DOTALL)
BYTE_ORDER = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
# Whatever the libraries raise over a damaged part.
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
    """The names of a zip's entries; Rejected where it is damaged, encrypted, a bomb, or holds a document type."""
    with _unbroken(format), zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        if any(entry.flag_bits & ENCRYPTED_FLAG for entry in entries):
            raise Rejected(
                RejectionReason.ENCRYPTED, "The archive is encrypted; publish it without a password.", format
            )
        budget.take("entries", len(entries), format)
        budget.take("expanded_bytes", sum(entry.file_size for entry in entries), format)
        if any(_is_bomb(entry) for entry in entries):
            raise Rejected(
                RejectionReason.TOO_LARGE, "The file is packed more tightly than is read; save it again.", format
            )
        for entry in entries:
            if not entry.is_dir():
                _check_xml(archive, entry, format)
    return [entry.filename for entry in entries]


@contextmanager
def _unbroken(format: str) -> Iterator[None]:
    try:
        yield
    except BROKEN:
        raise Rejected(RejectionReason.CORRUPT, "The file is damaged or cut off; export it again.", format) from None


def _is_bomb(entry: zipfile.ZipInfo) -> bool:
    return entry.file_size > max(RATIO_FROM_BYTES, MAX_RATIO * entry.compress_size)


def _check_xml(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, format: str) -> None:
    with archive.open(entry) as part:
        head = part.read(HEAD_BYTES)
    for mark in BYTE_ORDER:
        head = head.removeprefix(mark)
    # UTF-16 becomes readable enough.
    plain = head.replace(b"\0", b"").lstrip()
    is_xml = bool(XML_NAME.search(entry.filename)) or plain.startswith((b"<?xml", b"<!DOCTYPE"))
    if is_xml and not entry.filename.lower().endswith(".svg") and plain and not PROLOG.match(plain):
        raise Rejected(
            RejectionReason.CORRUPT,
            "Its XML is damaged or declares entities, which are not read; save it again.",
            format,
        )
