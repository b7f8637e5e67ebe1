"""HTML through markdownify, and Word files through mammoth's HTML."""

import io
import re
import zipfile
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit
from xml.parsers.expat import ExpatError

import mammoth
from bs4 import BeautifulSoup
from markdownify import ATX, MarkdownConverter

from services.ingestion.adapters.formats.archive import BROKEN
from services.ingestion.adapters.formats.budget import Budget
from services.ingestion.adapters.formats.text import CHARSET, declared, decode
from services.ingestion.domain import File, Parsed, Rejected, RejectionReason, clean

META_BYTES = 2048
DROPPED = ("script", "style", "template", "noscript")
# Where an equation begins or ends, of which mammoth knows nothing, and the signs in it.
EQUATION = re.compile(r"(<m:oMath(?:\s[^<>]*)?>|</m:oMath>)")
SIGNS = re.compile(r"<m:t\b[^<>]*>([^<]*)</m:t>")
MAX_SPAN = 50


class Writer(MarkdownConverter):
    """Markdown as the other formats write it: pictures leave their description, links lead to pages alone."""

    def convert_a(self, el: Any, text: str, parent_tags: Any) -> str:
        """A link, where it leads to a page."""
        try:
            parts = urlsplit(el.get("href") or "")
        except ValueError:
            return text
        if parts.scheme.lower() not in ("http", "https", ""):
            return text
        if el.get("href"):
            el["href"] = urlunsplit(parts._replace(path=quote(parts.path, safe="/%~:@!$&'*+,;=")))
        return str(super().convert_a(el, text, parent_tags))  # type: ignore[misc]

    def convert_img(self, el: Any, text: str, parent_tags: Any) -> str:
        """A picture's description."""
        del text, parent_tags
        return " ".join(str(el.get("alt") or "").split())

    def convert_input(self, el: Any, text: str, parent_tags: Any) -> str:
        """A box, ticked or not."""
        del text, parent_tags
        return ("[x] " if el.has_attr("checked") else "[ ] ") if el.get("type") == "checkbox" else ""


def parse_html(file: File, budget: Budget) -> Parsed:
    """Markdown of a page's body."""
    del budget
    charset = declared(file.content_type)
    meta = CHARSET.search(file.data[:META_BYTES].decode("ascii", errors="replace"))
    return Parsed(html_to_markdown(decode(file.data, charset or (meta[1] if meta else ""))), "html")


def html_to_markdown(html: str) -> str:
    """Clean Markdown of HTML; scripts and styles are dropped, what nests too deeply becomes plain text."""
    soup = BeautifulSoup(html, "lxml")
    for element in soup(DROPPED):
        element.extract()
    # What a number in the page could blow up is bounded.
    for cell in soup(("td", "th"), colspan=True):
        cell["colspan"] = _span(str(cell["colspan"]))
    for element in soup("ol", start=lambda start: start is not None and not _is_number(start)):
        del element["start"]
    body = soup.body or soup
    try:
        markdown = Writer(heading_style=ATX, bullets="-").convert_soup(body)
    except RecursionError:
        markdown = body.get_text("\n", strip=True)
    return clean(markdown.replace("\\_", "_"))


def parse_docx(file: File, budget: Budget) -> Parsed:
    """Markdown of a Word file, headings by their styles; pictures are not opened, and equations become their signs in a row."""
    del budget
    try:
        html = mammoth.convert_to_html(
            io.BytesIO(_with_plain_equations(file.data)),
            include_embedded_style_map=False,
            convert_image=mammoth.images.img_element(lambda image: {}),
        ).value
    except (*BROKEN, ExpatError):
        raise Rejected(RejectionReason.CORRUPT, "The Word file is damaged or cut off; save it again.", "docx") from None
    return Parsed(html_to_markdown(html), "docx")


def _with_plain_equations(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [entry for entry in archive.namelist() if entry.startswith("word/document")]
        changed = {name: content for name in names if b"<m:oMath" in (content := archive.read(name))}
        if not changed:
            return data
        parts = {entry.filename: archive.read(entry) for entry in archive.infolist() if not entry.is_dir()}
    for name, content in changed.items():
        parts[name] = _plain(content.decode()).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _plain(xml: str) -> str:
    """The XML with a run of signs in place of every equation."""
    kept = []
    is_equation = False
    for part in EQUATION.split(xml):
        if EQUATION.fullmatch(part):
            is_equation = part[1] != "/"
        elif is_equation and part:
            kept.append(f'<w:r><w:t xml:space="preserve">{"".join(SIGNS.findall(part))}</w:t></w:r>')
        elif not is_equation:
            kept.append(part)
    return "".join(kept)


def _span(value: str) -> str:
    return str(min(int(value), MAX_SPAN)) if _is_number(value) else "1"


def _is_number(value: object) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,6}", str(value)))
