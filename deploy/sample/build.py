"""Render the sample corpus: `source/**/*.md` to `documents/`, `held_out/`, their label indexes and `gold.json`.

Every document is written once as marked text. This script strips the marks, renders each source to its format and
records the marked values. The outputs are byte-identical from run to run.

    python deploy/sample/build.py           write the outputs
    python deploy/sample/build.py --check   exit 1 if the outputs on disk differ from a fresh build
"""

import argparse
import html
import io
import json
import re
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path

from docx import Document as new_docx
from markdown_it import MarkdownIt
from markdown_it.token import Token
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.platypus import Flowable, Paragraph, SimpleDocTemplate

ROOT = Path(__file__).resolve().parent
SPECIAL = "special"
AUTHOR = "Harrow & Lindqvist"
FIXED_TIME = datetime(2025, 1, 1, tzinfo=UTC)

MARK_TYPES = frozenset(
    {
        "PERSON",
        "EMAIL_ADDRESS",
        "PHONE_NUMBER",
        "ADDRESS",
        "IBAN",
        "CREDIT_CARD",
        "CLIENT",
        "DATE_OF_BIRTH",
        "EMPLOYEE_CODE",
        "PROJECT_CODE",
        "IP_ADDRESS",
        "NATIONAL_ID",
    }
)
MARK = re.compile(r"\{\{([^{}|]*)\|([^{}]*)\}\}")
LABEL_KEYS = ("kind", "source", "department", "confidentiality", "doc")
ALLOWED = {
    "format": {"md", "txt", "html", "docx", "pdf", "eml"},
    "kind": {"document", "deliverable", "example"},
    "source": {"sharepoint", "mail", "archive", "wiki"},
    "department": {"operations", "risk", "compliance", "finance", "people"},
    "confidentiality": {"internal", "client", "board"},
    "doc": {"report", "board-summary", "memo", "mail", "note", "example"},
}
SPECIAL_LABELS = {
    "kind": "document",
    "source": "archive",
    "department": "operations",
    "confidentiality": "internal",
    "doc": "report",
}
MAIL_HEADERS = ("from", "to", "cc", "date", "subject")
HEADER_LINE = re.compile(r"^[A-Z][A-Za-z ]{0,20}:\s")
HTML_PAGE = """<!DOCTYPE html>
<html lang="en-GB">
<head>
<meta charset="utf-8">
<title>{title}</title>
</head>
<body>
{body}</body>
</html>
"""


class SourceError(Exception):
    """A source file that cannot be rendered; the message names the file."""


@dataclass(frozen=True)
class Source:
    """One source document with its marks already replaced by their values."""

    name: str
    meta: dict[str, str]
    body: str
    marks: tuple[tuple[str, str], ...]

    @property
    def is_example(self) -> bool:
        """Whether the source is a prompt and its answer."""
        return self.meta["kind"] == "example"

    @property
    def folder(self) -> str:
        """The output folder: held-out documents stay unpublished."""
        return "held_out" if self.meta.get("held_out") == "true" else "documents"

    @property
    def file_name(self) -> str:
        """The name of the rendered file."""
        return f"{self.name}.{'json' if self.is_example else self.meta['format']}"

    @property
    def output_path(self) -> str:
        """The path of the rendered file, relative to the sample folder."""
        return f"{self.folder}/{self.file_name}"


@dataclass(frozen=True)
class TextRun:
    """A run of text with one weight."""

    text: str
    bold: bool = False
    italic: bool = False


@dataclass(frozen=True)
class Block:
    """A heading, paragraph or list item: the structure that docx, pdf and txt share."""

    kind: str
    spans: tuple[TextRun, ...]
    level: int = 0
    number: int = 0


# Reading the sources


def read_source(path: Path) -> Source:
    """Read, unmark and validate one source file."""
    meta, body = split_front_matter(path.read_text(encoding="utf-8"))
    marks: dict[tuple[str, str], None] = {}
    shown = {key: unmark(value, marks) for key, value in meta.items()}
    validate_meta(shown)
    return Source(path.stem, shown, unmark(body, marks), tuple(marks))


def split_front_matter(text: str) -> tuple[dict[str, str], str]:
    """Return the front matter as `key: value` pairs, and the body."""
    match = re.match(r"---\n(.*?)\n---\n(.*)", text, re.DOTALL)
    if not match:
        raise SourceError("no front matter between --- lines")
    meta: dict[str, str] = {}
    for line in filter(str.strip, match[1].splitlines()):
        key, colon, value = line.partition(":")
        if not colon:
            raise SourceError(f"front matter line without a colon: {line!r}")
        meta[key.strip()] = unquote(value.strip())
    return meta, match[2].strip() + "\n"


def unquote(value: str) -> str:
    """Drop a pair of double quotes that encloses the whole value."""
    return value[1:-1] if re.fullmatch(r'"[^"]*"', value) else value


def unmark(text: str, marks: dict[tuple[str, str], None]) -> str:
    """Replace each mark by its value, and add what was marked to `marks` in order."""

    def replace(match: re.Match[str]) -> str:
        mark_type, value = match[1], " ".join(match[2].split())
        if mark_type not in MARK_TYPES:
            raise SourceError(f"unknown mark type {mark_type!r} in {match[0]!r}")
        if not value or "|" in value:
            raise SourceError(f"malformed mark {match[0]!r}")
        marks[mark_type, value] = None
        return value

    plain = MARK.sub(replace, text)
    leftover = re.search(r"\{\{|\}\}", plain)
    if leftover:
        near = plain[max(0, leftover.start() - 30) : leftover.end() + 30]
        raise SourceError(f"unbalanced mark near {near!r}")
    return plain


def validate_meta(meta: dict[str, str]) -> None:
    """Refuse missing or unknown front-matter values."""
    for key, allowed in ALLOWED.items():
        if key == "format" and meta.get("kind") == "example":
            continue
        if meta.get(key) not in allowed:
            raise SourceError(f"front matter {key}: {meta.get(key)!r} is not one of {', '.join(sorted(allowed))}")
    if meta.get("format") == "eml" and meta["kind"] != "example":
        missing = [key for key in MAIL_HEADERS if key != "cc" and not meta.get(key)]
        if missing:
            raise SourceError(f"mail without {', '.join(missing)}")


# Markdown to blocks


def parse_blocks(body: str) -> list[Block]:
    """Read Markdown as a flat list of headings, paragraphs and list items."""
    blocks: list[Block] = []
    lists: list[list[int]] = []
    heading = 0
    for token in MarkdownIt("commonmark").parse(body):
        if token.type == "heading_open":
            heading = int(token.tag[1])
        elif token.type == "heading_close":
            heading = 0
        elif token.type == "bullet_list_open":
            lists.append([])
        elif token.type == "ordered_list_open":
            lists.append([int(token.attrs.get("start", 1))])
        elif token.type in ("bullet_list_close", "ordered_list_close"):
            lists.pop()
        elif token.type == "inline":
            blocks.append(make_block(tuple(parse_spans(token)), heading, lists))
        elif token.type in ("code_block", "fence", "html_block"):
            raise SourceError(f"unsupported Markdown on line {(token.map or [0])[0] + 1} of the body: {token.type}")
    return blocks


def make_block(spans: tuple[TextRun, ...], heading: int, lists: list[list[int]]) -> Block:
    """Name the block by where it stands, and count it when its list is numbered."""
    if heading:
        return Block("heading", spans, heading)
    if not lists:
        return Block("paragraph", spans)
    if not lists[-1]:
        return Block("bullet", spans, len(lists))
    lists[-1][0] += 1
    return Block("number", spans, len(lists), lists[-1][0] - 1)


def parse_spans(inline: Token) -> Iterator[TextRun]:
    """Yield the text runs of an inline token, a line break as a newline."""
    bold = italic = False
    children = inline.children or []
    for position, token in enumerate(children):
        if token.type in ("strong_open", "strong_close"):
            bold = token.type == "strong_open"
        elif token.type in ("em_open", "em_close"):
            italic = token.type == "em_open"
        elif token.type == "softbreak":
            following = "".join(child.content for child in children[position + 1 :])
            yield TextRun("\n" if HEADER_LINE.match(following) else " ", bold, italic)
        elif token.type == "hardbreak":
            yield TextRun("\n", bold, italic)
        elif token.content:
            yield TextRun(token.content, bold, italic)


def plain(block: Block) -> str:
    """The text of a block without weights."""
    return "".join(span.text for span in block.spans)


def title_of(source: Source) -> str:
    """The first heading, or the file's name."""
    return next((plain(block) for block in parse_blocks(source.body) if block.kind == "heading"), source.name)


# Renderers


def render_md(source: Source) -> bytes:
    """The body as it is."""
    return source.body.encode()


def render_txt(source: Source) -> bytes:
    """The body line by line, without Markdown marks."""
    return plain_text(source.body).encode()


def plain_text(body: str) -> str:
    """Drop heading, emphasis and code marks; lists keep their dashes and numbers."""
    text = re.sub(r"^#{1,6} +", "", body, flags=re.MULTILINE)
    text = re.sub(r"^(\s*)\* ", r"\1- ", text, flags=re.MULTILINE)
    text = re.sub(r"\*\*(.+?)\*\*|\*(.+?)\*|`(.+?)`", lambda match: match[1] or match[2] or match[3], text)
    return re.sub(r"(?: {2,}|\\)$", "", text, flags=re.MULTILINE)


def render_html(source: Source) -> bytes:
    """A small page around the converted body."""
    page = HTML_PAGE.format(title=html.escape(title_of(source)), body=html_body(source.body))
    return page.encode()


def html_body(body: str) -> str:
    """Convert Markdown to HTML; a `Label: value` line keeps its line break."""
    lines = body.split("\n")
    for number, following in enumerate(lines[1:]):
        if lines[number].strip() and HEADER_LINE.match(following.replace("*", "")):
            lines[number] = lines[number].rstrip() + "  "
    return str(MarkdownIt("commonmark").render("\n".join(lines)))


def render_docx(source: Source) -> bytes:
    """A Word file with real heading and list styles."""
    document = new_docx()
    properties = document.core_properties
    properties.author = properties.last_modified_by = AUTHOR
    properties.title, properties.comments = title_of(source), ""
    properties.created = properties.modified = FIXED_TIME
    for block in parse_blocks(source.body):
        paragraph = document.add_paragraph(style=docx_style(block))
        for span in block.spans:
            run = paragraph.add_run(span.text)
            run.bold, run.italic = span.bold or None, span.italic or None
    buffer = io.BytesIO()
    document.save(buffer)
    return normalise_zip(buffer.getvalue())


def docx_style(block: Block) -> str:
    """The style of the default Word template that fits a block."""
    if block.kind == "heading":
        return f"Heading {block.level}"
    if block.kind == "paragraph":
        return "Normal"
    depth = f" {min(block.level, 3)}" if block.level > 1 else ""
    return f"List {block.kind.capitalize()}{depth}"


def normalise_zip(data: bytes) -> bytes:
    """Write a zip again with fixed times."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            info = zipfile.ZipInfo(name, (2025, 1, 1, 0, 0, 0))
            info.create_system = 3
            new.writestr(info, old.read(name), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def render_pdf(source: Source) -> bytes:
    """A PDF in the standard Helvetica faces, so the text must lie within their character set."""
    try:
        source.body.encode("cp1252")
    except UnicodeEncodeError as error:
        character = source.body[error.start]
        raise SourceError(f"the pdf fonts have no {character!r}; choose another format or name") from error
    buffer = io.BytesIO()
    template = SimpleDocTemplate(
        buffer,
        title=title_of(source),
        author=AUTHOR,
        invariant=1,
        pageCompression=0,
        leftMargin=25 * mm,
        rightMargin=25 * mm,
        topMargin=22 * mm,
        bottomMargin=22 * mm,
    )
    template.build([pdf_flowable(block) for block in parse_blocks(source.body)])
    return buffer.getvalue()


def pdf_flowable(block: Block) -> Flowable:
    """One paragraph of a PDF; headings are larger and bold, list items are indented."""
    if block.kind == "heading":
        size = {1: 17, 2: 13}.get(block.level, 11)
        style = ParagraphStyle(
            f"h{block.level}", fontName="Helvetica-Bold", fontSize=size, leading=size * 1.3, spaceBefore=8, spaceAfter=4
        )
        return Paragraph(pdf_markup(block.spans), style)
    marker = {"bullet": "- ", "number": f"{block.number}. "}.get(block.kind, "")
    style = ParagraphStyle(
        block.kind,
        fontName="Helvetica",
        fontSize=10,
        leading=14,
        spaceAfter=5,
        leftIndent=14 * block.level,
        firstLineIndent=-5 * len(marker),
    )
    return Paragraph(marker + pdf_markup(block.spans), style)


def pdf_markup(spans: Iterable[TextRun]) -> str:
    """Spans in the inline markup of reportlab."""
    parts = []
    for span in spans:
        text = html.escape(span.text, quote=False).replace("\n", "<br/>")
        text = f"<b>{text}</b>" if span.bold else text
        parts.append(f"<i>{text}</i>" if span.italic else text)
    return "".join(parts)


def render_eml(source: Source) -> bytes:
    """A mail with the headers of the front matter; `html: true` adds an HTML alternative."""
    message = EmailMessage(policy=SMTP.clone(linesep="\n", cte_type="8bit"))
    for key in ("from", "to", "cc", "subject"):
        if source.meta.get(key):
            message[key.capitalize()] = source.meta[key]
    message["Date"] = mail_date(source.meta["date"])
    message["Message-ID"] = f"<{source.name}@harrow-lindqvist.example>"
    message.set_content(plain_text(source.body), cte="8bit")
    if source.meta.get("html") == "true":
        message.add_alternative(html_body(source.body), subtype="html", cte="8bit")
        message.set_boundary(f"=_{source.name}")
    return message.as_bytes()


def mail_date(value: str) -> str:
    """A Date header from either its mail form or an ISO date and time."""
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
        except ValueError as error:
            raise SourceError(f"unreadable date {value!r}") from error
    return format_datetime(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def render_example(source: Source) -> bytes:
    """A prompt and its answer as JSON."""
    match = re.fullmatch(r"\s*## Prompt\n(.+?)\n## Answer\n(.+)", source.body, re.DOTALL)
    if not match:
        raise SourceError("an example needs '## Prompt' and then '## Answer'")
    return to_json({"kind": "example", "prompt": match[1].strip(), "answer": match[2].strip()})


RENDERERS: dict[str, Callable[[Source], bytes]] = {
    "md": render_md,
    "txt": render_txt,
    "html": render_html,
    "docx": render_docx,
    "pdf": render_pdf,
    "eml": render_eml,
}


def render(source: Source) -> bytes:
    """Render a source in its own format."""
    return render_example(source) if source.is_example else RENDERERS[source.meta["format"]](source)


# The build


def to_json(value: object) -> bytes:
    """Readable JSON with a final newline."""
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()


def read_and_render(root: Path) -> Iterator[tuple[Source, bytes]]:
    """Yield every source with its rendered bytes; all faulty sources are reported together at the end."""
    seen: set[str] = set()
    errors: list[str] = []
    for path in sorted((root / "source").rglob("*.md")):
        if SPECIAL in path.relative_to(root).parts:
            continue
        try:
            source = read_source(path)
            if source.output_path in seen:
                raise SourceError(f"another source already gives {source.output_path}")
            data = render(source)
        except SourceError as error:
            errors.append(f"{path.relative_to(root)}: {error}")
            continue
        seen.add(source.output_path)
        yield source, data
    if errors:
        raise SourceError("\n".join(errors))


def build(root: Path) -> dict[str, bytes]:
    """Render the whole corpus in memory: the bytes of each output by its path relative to `root`."""
    outputs: dict[str, bytes] = {}
    gold: dict[str, list[dict[str, str]]] = {}
    labels: dict[str, dict[str, dict[str, str]]] = {"documents": {}, "held_out": {}}
    for source, data in read_and_render(root):
        outputs[source.output_path] = data
        gold[source.output_path] = [{"type": mark_type, "value": value} for mark_type, value in source.marks]
        if not source.is_example:
            labels[source.folder][source.file_name] = {key: source.meta[key] for key in LABEL_KEYS}
    for path in sorted((root / "source" / SPECIAL).glob("*")):
        outputs[f"documents/{path.name}"] = path.read_bytes()
        labels["documents"][path.name] = SPECIAL_LABELS
    outputs["gold.json"] = to_json({"documents": dict(sorted(gold.items()))})
    for folder, index in labels.items():
        outputs[f"{folder}.json"] = to_json(dict(sorted(index.items())))
    return outputs


def stray_files(root: Path, outputs: dict[str, bytes]) -> list[str]:
    """Files in the output folders that no source gives."""
    present = (path for folder in ("documents", "held_out") for path in (root / folder).rglob("*") if path.is_file())
    return sorted(name for path in present if (name := path.relative_to(root).as_posix()) not in outputs)


def same(path: Path, data: bytes) -> bool:
    """Whether the file holds `data`; Word files compare by their parts, since each zlib compresses in its own way."""
    if not path.is_file():
        return False
    content = path.read_bytes()
    if content == data or path.suffix != ".docx" or not zipfile.is_zipfile(path):
        return content == data
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(io.BytesIO(data)) as new:
        return old.namelist() == new.namelist() and all(old.read(name) == new.read(name) for name in new.namelist())


def differences(root: Path, outputs: dict[str, bytes]) -> list[str]:
    """The outputs on disk that are missing, changed or stray."""
    changed = [name for name, data in outputs.items() if not same(root / name, data)]
    return sorted(changed + stray_files(root, outputs))


def write(root: Path, outputs: dict[str, bytes]) -> None:
    """Write the outputs and remove stray files."""
    for name in stray_files(root, outputs):
        (root / name).unlink()
    for name, data in outputs.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def main(arguments: list[str] | None = None) -> int:
    """Build or check the corpus; return the exit status."""
    parser = argparse.ArgumentParser(description="Render the sample corpus.")
    parser.add_argument("--check", action="store_true", help="compare with the outputs on disk instead of writing")
    options = parser.parse_args(arguments)
    try:
        outputs = build(ROOT)
    except SourceError as error:
        print(error, file=sys.stderr)
        return 1
    if not options.check:
        write(ROOT, outputs)
        print(f"wrote {len(outputs)} files")
        return 0
    stale = differences(ROOT, outputs)
    for name in stale:
        print(f"out of date: {name}", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
