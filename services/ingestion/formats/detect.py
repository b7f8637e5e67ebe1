"""Detects the format of a file by its content, its name and its content type, in this order."""

import re

from services.ingestion.domain import File, Rejected, RejectionReason
from services.ingestion.formats.archive import check_archive
from services.ingestion.formats.budget import Budget
from services.ingestion.formats.text import detect_wide

OFFICE = "application/vnd.openxmlformats-officedocument."
BY_NAME = {
    "md": "md",
    "markdown": "md",
    "txt": "txt",
    "text": "txt",
    "rst": "txt",
    "log": "txt",
    "html": "html",
    "htm": "html",
    "xhtml": "html",
    "docx": "docx",
    "docm": "docx",
    "pptx": "pptx",
    "pptm": "pptx",
    "xlsx": "xlsx",
    "xlsm": "xlsx",
    "pdf": "pdf",
    "eml": "eml",
    "msg": "msg",
    "csv": "csv",
    "tsv": "csv",
    "json": "json",
}
BY_TYPE = {
    "text/markdown": "md",
    "text/x-markdown": "md",
    "text/plain": "txt",
    "text/x-rst": "txt",
    "text/html": "html",
    "application/xhtml+xml": "html",
    f"{OFFICE}wordprocessingml.document": "docx",
    f"{OFFICE}presentationml.presentation": "pptx",
    f"{OFFICE}spreadsheetml.sheet": "xlsx",
    "application/pdf": "pdf",
    "message/rfc822": "eml",
    "application/vnd.ms-outlook": "msg",
    "text/csv": "csv",
    "text/tab-separated-values": "csv",
    "application/json": "json",
}
# Formats that are recognised only by their content. The extension alone does not make a file one of them.
BY_CONTENT = ("pdf", "docx", "pptx", "xlsx", "msg")
MAIN_PARTS = (
    (re.compile(r"word/document\d*\.xml"), "docx"),
    (re.compile(r"ppt/presentation\d*\.xml"), "pptx"),
    (re.compile(r"xl/workbook\d*\.xml"), "xlsx"),
)
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
ENCRYPTED_PACKAGE = "EncryptedPackage".encode("utf-16-le")
MESSAGE_PROPERTIES = "__properties_version1.0".encode("utf-16-le")
HEADERS = re.compile(rb"\A(?:[A-Za-z-]+:[^\n]*\r?\n(?:[ \t][^\n]*\n)*){2,}", re.ASCII)
MAIL = re.compile(rb"^(?:From|Message-ID|Received|Subject):", re.IGNORECASE | re.MULTILINE)
UNSUPPORTED = "Publish it as md, txt, html, docx, pptx, xlsx, csv, pdf, eml, msg or json."


def detect(file: File, budget: Budget) -> str:
    """The short name of the format. Raises Rejected if the file is encrypted, damaged, too large or of an unsupported format."""
    data = file.data
    named = _name_format(file)
    if b"%PDF-" in data[:1024]:
        return "pdf"
    if data.startswith(OLE):
        return _ole(data, named)
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _archive(data, named, budget)
    if named in BY_CONTENT:
        raise Rejected(
            RejectionReason.CORRUPT,
            f"The name or media type says {named}, but the content is not {named}. Export the file again.",
            named,
        )
    if data.startswith(b"{\\rtf") or _is_binary(data):
        raise Rejected(RejectionReason.UNSUPPORTED_FORMAT, UNSUPPORTED)
    if named:
        return named
    if "." in file.name.strip(".") or file.content_type not in ("", "application/octet-stream"):
        raise Rejected(RejectionReason.UNSUPPORTED_FORMAT, UNSUPPORTED)
    return _by_text(data)


def _name_format(file: File) -> str:
    ending = file.name.lower().rpartition(".")[2] if "." in file.name else ""
    return BY_NAME.get(ending) or (
        "" if ending else BY_TYPE.get(file.content_type.partition(";")[0].strip().lower(), "")
    )


def _ole(data: bytes, named: str) -> str:
    if ENCRYPTED_PACKAGE in data:
        raise Rejected(
            RejectionReason.ENCRYPTED, "The file is protected by a password. Publish it without one.", named or "docx"
        )
    if MESSAGE_PROPERTIES in data:
        return "msg"
    if named == "msg":
        raise Rejected(
            RejectionReason.CORRUPT,
            "The name or media type says msg, but the content is not a mail. Export the file again.",
            named,
        )
    raise Rejected(RejectionReason.UNSUPPORTED_FORMAT, f"Office formats before 2007 are not supported. {UNSUPPORTED}")


def _archive(data: bytes, named: str, budget: Budget) -> str:
    names = check_archive(data, named, budget)
    for main, format in MAIN_PARTS:
        if any(main.fullmatch(name) for name in names):
            return format
    if named in BY_CONTENT:
        raise Rejected(
            RejectionReason.CORRUPT,
            f"The name or media type says {named}, but the content is not {named}. Export the file again.",
            named,
        )
    raise Rejected(RejectionReason.UNSUPPORTED_FORMAT, UNSUPPORTED)


def _is_binary(data: bytes) -> bool:
    head = data[:8192]
    if detect_wide(head):
        return False
    return b"\0" in head or sum(byte < 9 or 13 < byte < 32 for byte in head) > len(head) // 20


def _by_text(data: bytes) -> str:
    head = data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")
    if re.match(rb"<!doctype html|<html", head, re.IGNORECASE):
        return "html"
    if HEADERS.match(head) and MAIL.search(head):
        return "eml"
    return "md" if re.search(rb"^#{1,6} ", head, re.MULTILINE) else "txt"
