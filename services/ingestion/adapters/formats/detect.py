"""Telling a file's format by its content, its name and its content type, in this order."""

import io
import re
import zipfile

from services.ingestion.domain import File, Reason, Rejected

BY_NAME = {
    "md": "md",
    "markdown": "md",
    "txt": "txt",
    "text": "txt",
    "html": "html",
    "htm": "html",
    "xhtml": "html",
    "docx": "docx",
    "pdf": "pdf",
    "eml": "eml",
    "json": "json",
}
BY_TYPE = {
    "text/markdown": "md",
    "text/x-markdown": "md",
    "text/plain": "txt",
    "text/html": "html",
    "application/xhtml+xml": "html",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/pdf": "pdf",
    "message/rfc822": "eml",
    "application/json": "json",
}
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
ENCRYPTED_PACKAGE = "EncryptedPackage".encode("utf-16-le")
HEADERS = re.compile(rb"\A(?:[A-Za-z-]+:[^\n]*\r?\n(?:[ \t][^\n]*\n)*){2,}", re.ASCII)
MAIL = re.compile(rb"^(?:From|Message-ID|Received|Subject):", re.IGNORECASE | re.MULTILINE)
UNSUPPORTED = "Publish it as md, txt, html, docx, pdf, eml, or JSON with prompt and answer."
MAX_EXPANDED_BYTES = 200 * 1024 * 1024
MAX_ENTRIES = 5_000


def detect(file: File) -> str:
    """The format's short name; Rejected where it is encrypted, damaged or not one that is read."""
    data = file.data
    named = _named(file)
    if b"%PDF-" in data[:1024]:
        return "pdf"
    if data.startswith(OLE):
        if ENCRYPTED_PACKAGE in data:
            raise Rejected(Reason.ENCRYPTED, "The file is protected by a password; publish it without one.", "docx")
        raise Rejected(Reason.UNSUPPORTED_FORMAT, f"Old Office files are not read. {UNSUPPORTED}")
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _archive(data, named)
    if named in ("pdf", "docx"):
        raise Rejected(Reason.CORRUPT, f"The file is named {named} and is none; export it again.", named)
    if _is_binary(data):
        raise Rejected(Reason.UNSUPPORTED_FORMAT, UNSUPPORTED)
    if named:
        return named
    if "." in file.name.strip(".") or file.content_type not in ("", "application/octet-stream"):
        raise Rejected(Reason.UNSUPPORTED_FORMAT, UNSUPPORTED)
    return _by_look(data)


def _named(file: File) -> str:
    ending = file.name.lower().rpartition(".")[2] if "." in file.name else ""
    return BY_NAME.get(ending) or (
        "" if ending else BY_TYPE.get(file.content_type.partition(";")[0].strip().lower(), "")
    )


def _archive(data: bytes, named: str) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError):
        raise Rejected(Reason.CORRUPT, "The file is damaged or cut off; export it again.", named) from None
    if any(entry.flag_bits & 1 for entry in entries):
        raise Rejected(Reason.ENCRYPTED, "The archive is encrypted; publish it without a password.", named)
    if len(entries) > MAX_ENTRIES or sum(entry.file_size for entry in entries) > MAX_EXPANDED_BYTES:
        raise Rejected(Reason.TOO_LARGE, "The file expands to more than is read; publish it in parts.", named)
    if any(entry.filename == "word/document.xml" for entry in entries):
        return "docx"
    if named == "docx":
        raise Rejected(Reason.CORRUPT, "The file is named docx and holds no document; export it again.", named)
    raise Rejected(Reason.UNSUPPORTED_FORMAT, UNSUPPORTED)


def _is_binary(data: bytes) -> bool:
    head = data[:8192]
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return False
    return b"\0" in head or sum(byte < 9 or 13 < byte < 32 for byte in head) > len(head) // 20


def _by_look(data: bytes) -> str:
    head = data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")
    if re.match(rb"<!doctype html|<html", head, re.IGNORECASE):
        return "html"
    if HEADERS.match(head) and MAIL.search(head):
        return "eml"
    return "md" if re.search(rb"^#{1,6} ", head, re.MULTILINE) else "txt"
