"""A monthly report as Markdown, as HTML, and its plots as SVG files."""

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from tailor.cli.interval_plot import draw_intervals
from tailor.cli.month_sections import ReportSection
from tailor.errors import InvalidArgument, Reason

STYLE = (
    ":root{color-scheme:light dark}body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #8886}"
    "svg{max-width:100%;height:auto}"
)


def write_pages(folder: Path, name: str, title: str, sections: Sequence[ReportSection]) -> list[Path]:
    """Write `NAME.md`, `NAME.html` and a file for each plot, and return their paths. Raises InvalidArgument if one cannot be written."""
    files = {f"{name}.md": to_markdown(title, name, sections), f"{name}.html": to_html(title, sections)}
    for section in sections:
        if section.plot is not None:
            files[f"{name}-{section.plot.name}.svg"] = draw_intervals(section.plot.title, section.plot.values)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (folder / file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidArgument(
            Reason.CANNOT_WRITE, f"The report cannot be written to {folder}: {error.strerror}. Choose another --output."
        ) from None
    return [folder / file for file in files]


def to_markdown(title: str, name: str, sections: Sequence[ReportSection]) -> str:
    """The page as Markdown; it refers to the plots' files."""
    lines = [f"# {title}"]
    for section in sections:
        lines += ["", f"## {section.title}", "", *(f"- {_one_line(sentence)}" for sentence in section.sentences)]
        if section.plot is not None:
            lines += ["", f"![{section.plot.title}]({name}-{section.plot.name}.svg)"]
        if section.rows:
            lines += ["", *_markdown_table(section)]
    return "\n".join(lines) + "\n"


def to_html(title: str, sections: Sequence[ReportSection]) -> str:
    """The page as one HTML file that refers to no other file."""
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    body = "".join("".join(_html_section(section)) for section in sections)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body><h1>{escape(title)}</h1>{body}</body></html>\n'


def _html_section(section: ReportSection) -> Iterator[str]:
    yield f"<h2>{escape(section.title)}</h2>\n"
    yield from (f"<p>{escape(sentence)}</p>\n" for sentence in section.sentences)
    if section.plot is not None:
        yield draw_intervals(section.plot.title, section.plot.values)
    if section.rows:
        yield "<table><thead><tr>"
        yield from (f'<th scope="col">{escape(column)}</th>' for column in section.columns)
        yield "</tr></thead><tbody>\n"
        for row in section.rows:
            yield "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n"
        yield "</tbody></table>\n"


def _markdown_table(section: ReportSection) -> Iterator[str]:
    for cells in (section.columns, ["---"] * len(section.columns), *section.rows):
        yield f"| {' | '.join(_one_line(cell) for cell in cells)} |"


def _one_line(text: str) -> str:
    """Text that neither ends a line of Markdown nor a cell, and is not read as HTML."""
    return escape(" ".join(text.split()), quote=False).replace("|", "\\|")
