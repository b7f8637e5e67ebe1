"""HTML and Word files through markitdown."""

import io
import re
import zipfile
from typing import Any
from xml.etree.ElementTree import ParseError
from xml.parsers.expat import ExpatError

from markitdown import StreamInfo
from markitdown.converters import DocxConverter, HtmlConverter

from services.ingestion.adapters.formats.text import CHARSET, declared, decode
from services.ingestion.domain import File, Parsed, Reason, Rejected, clean

IMAGE = re.compile(r"!\[([^\]]*)\]\([^)]*\)")
LINK = re.compile(r"\[([^\]]+)\]\((?:mailto:|tel:)[^)]*\)")
META_BYTES = 2048


def parse_html(file: File) -> Parsed:
    """Markdown of a page's body."""
    charset = declared(file.content_type)
    meta = CHARSET.search(file.data[:META_BYTES].decode("ascii", errors="replace"))
    return Parsed(html_to_markdown(decode(file.data, charset or (meta[1] if meta else ""))), "html")


def html_to_markdown(html: str) -> str:
    """Clean Markdown of HTML; scripts and styles are dropped, images leave their description."""
    info = StreamInfo(mimetype="text/html", extension=".html", charset="utf-8")
    converted = HtmlConverter().convert(io.BytesIO(html.encode("utf-8", errors="replace")), info, heading_style="ATX")
    return _tidy(converted.markdown)


def parse_docx(file: File) -> Parsed:
    """Markdown of a Word file, headings by their styles."""
    info = StreamInfo(extension=".docx")
    converter: Any = DocxConverter()
    try:
        converted = converter.convert(io.BytesIO(file.data), info)
    except (
        zipfile.BadZipFile,
        KeyError,
        ValueError,
        ParseError,
        ExpatError,
        EOFError,
        OSError,
        AttributeError,
        NotImplementedError,
    ):
        raise Rejected(Reason.CORRUPT, "The Word file is damaged or cut off; save it again.", "docx") from None
    return Parsed(_tidy(converted.markdown), "docx")


def _tidy(markdown: str) -> str:
    plain = LINK.sub(r"\1", IMAGE.sub(r"\1", markdown))
    # markitdown writes bullets as `*`; the other formats use `-`.
    return clean(re.sub(r"^(\s*)[*+] (?=\S)", r"\1- ", plain, flags=re.MULTILINE).replace("\\_", "_"))
