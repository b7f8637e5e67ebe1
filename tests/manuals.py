"""Manuals by other hands in the formats of a company, made from what is on every machine: the documentation of Python's own modules.

It has what a house's reports do not have: indented passages, reStructuredText, code, section numbers, pages with navigation, PDF with a table
of contents and running headers. `make strangers` uses it where Debian's packages cannot be fetched.
"""

import ast
import html
import io
import itertools
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from functools import cache
from pathlib import Path
from textwrap import dedent, indent, wrap

KINDS = ("html", "txt", "rst", "eml", "pdf", "docx", "xlsx", "pptx", "md")
MIN_CHARS, MAX_PARTS, MAX_PART_CHARS = 700, 14, 2500
LINES_PER_PAGE = 46


@dataclass(frozen=True)
class Manual:
    """The documentation of a module: a title, and the names of its parts with their texts, as they are indented in the source."""

    name: str
    parts: tuple[tuple[str, str], ...]

    @property
    def title(self) -> str:
        return f"The module {self.name}"

    @property
    def numbered(self) -> Iterator[tuple[str, str, str]]:
        """Section numbers, names and texts."""
        for number, (name, text) in enumerate(self.parts, 1):
            yield f"{(number - 1) // 4 + 1}.{(number - 1) % 4 + 1}", name, text


@cache
def read_manuals() -> tuple[Manual, ...]:
    """All modules of the standard library with enough documentation, by name."""
    library = Path(sysconfig.get_path("stdlib"))
    files = sorted({*library.glob("*.py"), *library.glob("[a-z]*/*.py")} - set(library.glob("site-packages/*")))
    manuals = (_read(path, library) for path in files if "test" not in str(path.relative_to(library)))
    return tuple(manual for manual in manuals if sum(len(text) for _, text in manual.parts) >= MIN_CHARS)


def write_manuals(folder: Path, count: int) -> list[Path]:
    """Write `count` manuals, one kind after the other. Every kind occurs if there are as many."""
    folder.mkdir(parents=True, exist_ok=True)
    manuals = read_manuals()
    every = len(manuals) // count or 1
    paths = []
    for manual, kind in zip(manuals[::every][:count], itertools.cycle(KINDS), strict=False):
        path = folder / f"{manual.name}.{kind}"
        path.write_bytes(WRITERS[kind](manual))
        paths.append(path)
    return paths


def _read(path: Path, library: Path) -> Manual:
    name = ".".join(path.relative_to(library).with_suffix("").parts).removesuffix(".__init__")
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return Manual(name, ())
    named = [("Overview", tree), *((node.name, node) for node in ast.walk(tree) if isinstance(node, DOCUMENTED))]
    texts = ((part, ast.get_docstring(node, clean=False) or "") for part, node in named)
    parts = [(part, text[:MAX_PART_CHARS]) for part, text in texts if len(text) > 120]
    return Manual(name, tuple(parts[:MAX_PARTS]))


DOCUMENTED = (ast.ClassDef, ast.FunctionDef)


def _to_text(manual: Manual) -> bytes:
    """Plain text, in which the passages stay indented."""
    sections = (f"{number} {name}\n\n{indent(dedent(text), '    ')}" for number, name, text in manual.numbered)
    return "\n\n".join([manual.title, "=" * len(manual.title), *sections]).encode()


def _to_rst(manual: Manual) -> bytes:
    sections = (
        f"{name}\n{'-' * len(name)}\n\n.. versionadded:: 3.{len(name) % 9}\n\n::\n\n{indent(dedent(text), '   ')}"
        for name, text in manual.parts
    )
    return "\n\n".join([f".. _{manual.name}:", manual.title, "=" * len(manual.title), *sections]).encode()


def _to_markdown(manual: Manual) -> bytes:
    sections = (f"## {name}\n\n```\nimport {manual.name}\n```\n\n{dedent(text)}" for name, text in manual.parts)
    return "\n\n".join([f"# {manual.title}", *sections]).encode()


def _to_html(manual: Manual) -> bytes:
    """A page as DocBook writes it: navigation above and below, a table of contents, and a title that only `<title>` has."""
    rows = "".join(
        f'<td><a rel="{rel.lower()}" href="{rel}.html">{rel}</a></td>' for rel in ("Prev", "Up", "Home", "Next")
    )
    bar = f'<table class="navigation" width="100%"><tr>{rows}</tr></table>'
    contents = "".join(
        f'<li><a href="#{number}">{number}. {html.escape(name)}</a></li>' for number, name, _ in manual.numbered
    )
    body = "".join(
        f'<h2 id="{number}">{number}. {html.escape(name)}</h2>'
        + "".join(f"<p>{html.escape(part)}</p>" for part in dedent(text).split("\n\n"))
        for number, name, text in manual.numbered
    )
    return (
        f"<html><head><title>{html.escape(manual.title)}</title></head><body><nav>{bar}</nav>"
        f'<div class="toc"><ul>{contents}</ul></div><div class="main">{body}</div>'
        f"<footer>{bar}<p>Copyright by the authors.</p></footer></body></html>"
    ).encode()


def _to_pdf(manual: Manual) -> bytes:
    """A contents page with dot leaders, and pages with a running header and their number."""
    from reportlab.pdfgen.canvas import Canvas

    lines = [
        line
        for number, name, text in manual.numbered
        for line in (
            f"{number} {name}",
            "",
            *itertools.chain(*(wrap(part, 90) or [""] for part in dedent(text).split("\n"))),
            "",
        )
    ]
    pages = [lines[start : start + LINES_PER_PAGE] for start in range(0, len(lines), LINES_PER_PAGE)]
    contents = [
        f"{number} {name} {'. ' * (40 - len(name) // 2)}{2 + at // 4}"
        for at, (number, name, _) in enumerate(manual.numbered)
    ]
    buffer = io.BytesIO()
    canvas = Canvas(buffer, invariant=1)
    canvas.setTitle(manual.title)
    for number, page in enumerate([[manual.title, "", "Contents", *contents], *pages], 1):
        canvas.setFont("Helvetica", 9)
        canvas.drawString(60, 810, f"{manual.title} - Reference Manual")
        canvas.drawString(290, 30, str(number))
        for at, line in enumerate(page):
            canvas.drawString(60, 780 - 15 * at, line)
        canvas.showPage()
    canvas.save()
    return buffer.getvalue()


def _to_mail(manual: Manual) -> bytes:
    mail = EmailMessage()
    mail["From"] = "Rosalind Achterberg <rosalind.achterberg@example.com>"
    mail["To"] = "users@example.com"
    mail["Subject"] = f"How {manual.name} behaves"
    mail["Date"] = "Tue, 03 Mar 2026 09:12:00 +0000"
    name, text = manual.parts[0]
    quoted = indent("\n".join(wrap(dedent(text), 70)), "> ")
    rest = "\n\n".join(f"{part}: {' '.join(other.split())}" for part, other in manual.parts[1:4])
    mail.set_content(f"Hello,\n\nthe manual says of {name}:\n\n{quoted}\n\n{rest}\n\nBest regards,\nRosalind\n")
    return mail.as_bytes()


def _to_docx(manual: Manual) -> bytes:
    from docx import Document

    document = Document()
    document.add_heading(manual.title, 0)
    for name, text in manual.parts:
        document.add_heading(name, 1)
        for part in dedent(text).split("\n\n"):
            document.add_paragraph(part)
    return _saved(document)


def _to_xlsx(manual: Manual) -> bytes:
    from openpyxl import Workbook

    book = Workbook()
    book.active.append(["Name", "What it does", "Length"])
    for name, text in manual.parts:
        book.active.append([name, " ".join(text.split())[:300], len(text)])
    return _saved(book)


def _to_pptx(manual: Manual) -> bytes:
    from pptx import Presentation

    slides = Presentation()
    for name, text in manual.parts:
        slide = slides.slides.add_slide(slides.slide_layouts[1])
        slide.shapes.title.text = name
        slide.placeholders[1].text = " ".join(text.split())[:600]
    return _saved(slides)


def _saved(document: object) -> bytes:
    buffer = io.BytesIO()
    document.save(buffer)  # type: ignore[attr-defined]  # all three libraries have it
    return buffer.getvalue()


WRITERS = {
    "html": _to_html,
    "txt": _to_text,
    "rst": _to_rst,
    "md": _to_markdown,
    "eml": _to_mail,
    "pdf": _to_pdf,
    "docx": _to_docx,
    "xlsx": _to_xlsx,
    "pptx": _to_pptx,
}
