"""Tables of Markdown reports."""

from collections.abc import Iterable, Iterator, Sequence
from html import escape

TEXT, FIGURE = "---", "---:"


def list_table_lines(columns: Sequence[str], rows: Iterable[Sequence[object]], others: str = TEXT) -> Iterator[str]:
    """The lines of a table; `others` is the mark under every column but the first."""
    marks = [TEXT, *([others] * (len(columns) - 1))]
    for row in (columns, marks, *rows):
        yield f"| {' | '.join(on_one_line(str(cell)) for cell in row)} |"


def on_one_line(text: str) -> str:
    """Text that neither ends a line of Markdown nor a cell, and is not read as HTML."""
    return escape(" ".join(text.split()), quote=False).replace("|", "\\|")
