"""What a command says: for people by default, or one JSON document on standard output."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tailor.errors import TailorError

Render = Callable[[Console], None]
SHORT_DIGEST = 12


class Output(Protocol):
    """Where a command's result goes. What is only said on the way goes to standard error, always."""

    notes: Console

    def emit(self, document: Any, render: Render) -> None:
        """State the result, once."""
        ...

    def write(self, text: str) -> None:
        """Show a piece of a result that is still being written."""
        ...


class TextOutput:
    """For people."""

    def __init__(self) -> None:
        self.notes = Console(stderr=True)
        self._console = Console(highlight=False)

    def emit(self, document: Any, render: Render) -> None:
        """Show the result."""
        del document
        render(self._console)

    def write(self, text: str) -> None:
        """Show a piece at once."""
        self._console.out(text, end="", highlight=False)


class JsonOutput:
    """For programs: one JSON document."""

    def __init__(self) -> None:
        self.notes = Console(stderr=True)

    def emit(self, document: Any, render: Render) -> None:
        """Write the document."""
        del render
        sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=2) + "\n")

    def write(self, text: str) -> None:
        """Pieces are part of the document."""


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A plain table; `none yet` where there is no row."""
    made = Table(title=title, title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    if not made.row_count:
        made.add_row("none yet")
    return made


def shows(renderable: Any) -> Render:
    """A render that prints one thing."""
    return lambda console: console.print(renderable)


def short(digest: str) -> str:
    """The first digits of a digest; a dash where there is none."""
    return digest[:SHORT_DIGEST] or "-"


def print_error(error: TailorError) -> None:
    """One line, and one for each field that is wrong, on standard error."""
    lines = [f"error: {error.reason}: {error.message}"]
    lines += [f"  {name}: {text}" for name, text in error.field_violations.items()]
    sys.stderr.write("\n".join(lines) + "\n")
