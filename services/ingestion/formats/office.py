"""HTML, converted by markdownify without what surrounds its content, and Word files, converted to HTML by mammoth."""

import io
import re
import zipfile
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit
from xml.parsers.expat import ExpatError

import mammoth
from bs4 import BeautifulSoup
from markdownify import ATX, MarkdownConverter

from services.ingestion.domain import File, ParsedText, Rejected, RejectionReason, clean
from services.ingestion.formats.archive import BROKEN
from services.ingestion.formats.budget import Budget
from services.ingestion.formats.main_content import remove_boilerplate
from services.ingestion.formats.text import CHARSET, declared_charset, decode

META_BYTES = 2048
DROPPED = ("script", "style", "template", "noscript")
HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
TABLE_PARTS = ("caption", "thead", "tbody", "tfoot", "tr", "td", "th")
# The start or end of an equation, which mammoth does not support, and the characters in it.
EQUATION = re.compile(r"(<m:oMath(?:\s[^<>]*)?>|</m:oMath>)")
SIGNS = re.compile(r"<m:t\b[^<>]*>([^<]*)</m:t>")
MAX_SPAN = 50
XML_DECLARATION = re.compile(r"\s*<\?xml[^>]*>")
HEADING = re.compile(r"(#{1,6}) (.*)")
# Titles that programs give, and names of files.
GENERIC_TITLE = re.compile(
    r"(?:untitled(?: document)?|document\d*|title|index|home(?:page)?|welcome|(?:new )?page|unbenannt|sans titre|sin título)"
    r"|Microsoft Word - .*|\S+\.\w{2,5}|\W*",
    re.IGNORECASE,
)


class MarkdownWriter(MarkdownConverter):
    """Markdown as from the other formats: a picture becomes its description, and only links to web pages are kept."""

    def convert_a(self, el: Any, text: str, parent_tags: Any) -> str:
        """A link on one line if it leads to a web page, otherwise its text. What appears over a link is not text of the page."""
        text = " ".join(text.split()) if "\n" in text.strip() else text
        el.attrs.pop("title", None)
        try:
            parts = urlsplit(el.get("href") or "")
        except ValueError:
            return text
        if not el.get("href") or parts.scheme.lower() not in ("http", "https", ""):
            return text
        el["href"] = urlunsplit(parts._replace(path=quote(parts.path, safe="/%~:@!$&'*+,;=")))
        return str(super().convert_a(el, text, parent_tags))  # type: ignore[misc]

    def convert_dd(self, el: Any, text: str, parent_tags: Any) -> str:
        """The explanation of a term, as a paragraph under it and without a marker."""
        if "_inline" in parent_tags:
            return str(super().convert_dd(el, text, parent_tags))  # type: ignore[misc]
        return f"\n\n{text.strip()}\n\n"

    def convert_img(self, el: Any, text: str, parent_tags: Any) -> str:
        """The description of a picture."""
        del text, parent_tags
        return " ".join(str(el.get("alt") or "").split())

    def convert_input(self, el: Any, text: str, parent_tags: Any) -> str:
        """A checkbox, ticked or not; nothing for other inputs."""
        del text, parent_tags
        return ("[x] " if el.has_attr("checked") else "[ ] ") if el.get("type") == "checkbox" else ""


def parse_html(file: File, budget: Budget) -> ParsedText:
    """The main content of a web page as Markdown. Its title stands above it, unless a heading does."""
    charset = declared_charset(file.content_type)
    meta = CHARSET.search(file.data[:META_BYTES].decode("ascii", errors="replace"))
    soup = _parse(decode(file.data, charset or (meta[1] if meta else "")))
    budget.removed.update(remove_boilerplate(soup))
    title = " ".join(soup.title.get_text().split()) if soup.title else ""
    return ParsedText(_add_title(_convert(soup), title), "html")


def html_to_markdown(html: str) -> str:
    """HTML as clean Markdown, without scripts and styles. HTML that nests too deeply becomes plain text."""
    return _convert(_parse(html))


def _parse(html: str) -> BeautifulSoup:
    soup = BeautifulSoup(XML_DECLARATION.sub("", html, count=1), "lxml")
    for element in soup(DROPPED):
        element.extract()
    _open_layout_tables(soup)
    return soup


def _convert(soup: BeautifulSoup) -> str:
    # Bounds the numbers in the page that could blow up the output.
    for cell in soup(("td", "th"), colspan=True):
        cell["colspan"] = _span(str(cell["colspan"]))
    for element in soup("ol", start=lambda start: start is not None and not _is_number(start)):
        del element["start"]
    body = soup.body or soup
    try:
        # A line's end in a paragraph's HTML is a blank, as a browser shows it.
        writer = MarkdownWriter(heading_style=ATX, bullets="-", wrap=True, wrap_width=None)
        markdown = writer.convert_soup(body)
    except RecursionError:
        markdown = body.get_text("\n", strip=True)
    return clean(markdown.replace("\\_", "_"))


def _add_title(markdown: str, title: str) -> str:
    """The text under the title of its page, unless that is generic or the text begins with a heading that has its words."""
    if GENERIC_TITLE.fullmatch(title) or not markdown.strip():
        return markdown
    heading = HEADING.match(markdown)
    is_titled = heading is not None and (
        len(heading[1]) <= 2 or not set(heading[2].lower().split()).isdisjoint(title.lower().split())
    )
    return markdown if is_titled else clean(f"# {title}\n\n{markdown}")


def _open_layout_tables(soup: BeautifulSoup) -> None:
    """Make plain blocks of tables that arrange a page: those that contain a heading or another table."""
    within = [(element, element.find_parent("table")) for element in soup(("table", *HEADINGS, *TABLE_PARTS))]
    layouts = {id(table) for element, table in within if table is not None and element.name not in TABLE_PARTS}
    for element, table in within:
        if id(element) in layouts or (element.name in TABLE_PARTS and id(table) in layouts):
            element.name = "div"


def parse_docx(file: File, budget: Budget) -> ParsedText:
    """A Word file as Markdown. Styles determine headings, pictures are not opened, and an equation becomes its characters in a row."""
    del budget
    try:
        html = mammoth.convert_to_html(
            io.BytesIO(_flatten_equations(file.data)),
            include_embedded_style_map=False,
            convert_image=mammoth.images.img_element(lambda image: {}),
        ).value
    except (*BROKEN, ExpatError):
        raise Rejected(
            RejectionReason.CORRUPT, "The Word file is damaged or truncated. Save it again.", "docx"
        ) from None
    return ParsedText(html_to_markdown(html), "docx")


def _flatten_equations(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [entry for entry in archive.namelist() if entry.startswith("word/document")]
        changed = {name: content for name in names if b"<m:oMath" in (content := archive.read(name))}
        if not changed:
            return data
        parts = {entry.filename: archive.read(entry) for entry in archive.infolist() if not entry.is_dir()}
    for name, content in changed.items():
        parts[name] = _flatten(content.decode()).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _flatten(xml: str) -> str:
    """The XML with a run of plain text in place of every equation."""
    parts = []
    is_equation = False
    for part in EQUATION.split(xml):
        if EQUATION.fullmatch(part):
            is_equation = part[1] != "/"
        elif is_equation and part:
            parts.append(f'<w:r><w:t xml:space="preserve">{"".join(SIGNS.findall(part))}</w:t></w:r>')
        elif not is_equation:
            parts.append(part)
    return "".join(parts)


def _span(value: str) -> str:
    return str(min(int(value), MAX_SPAN)) if _is_number(value) else "1"


def _is_number(value: object) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,6}", str(value)))
