"""Output of commands: text for people by default, or one JSON document on standard output."""

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from tailor.cli.whole_words import WordTable
from tailor.errors import TailorError

Render = Callable[[Console], None]
SHORT_DIGEST = 12
# Names, comments, publishers' ids and models' answers could write to the clipboard or hide lines with them.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
REPLACEMENT = "\ufffd"


class Output(Protocol):
    """Where a command's result goes. Progress always goes to standard error, through `notes`."""

    notes: Console

    def emit(self, document: Any, render: Render) -> None:
        """Write the result. Call it once."""
        ...

    def write(self, text: str) -> None:
        """Show a piece of a result that is still being generated."""
        ...


class PlainConsole(Console):
    """A console that shows control characters within texts, instead of sending them to the terminal. Its own styles still work.

    Nothing is broken into lines without a terminal, and nothing is cut off with one: what is printed can be copied and searched.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.soft_wrap = not self.is_terminal

    def print(self, *objects: Any, crop: bool = False, **options: Any) -> None:
        """Print with rich's markup, without cutting off what is wider than the terminal."""
        super().print(*objects, crop=crop, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The parts of what is printed."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(plain(segment.text), segment.style)


def plain(text: str) -> str:
    """The text with a replacement for each control character but line ends and tabs."""
    return CONTROL.sub(REPLACEMENT, text)


class TextOutput(Output):
    """Text for people."""

    def __init__(self) -> None:
        self.notes: Console = PlainConsole(stderr=True)
        self._console = PlainConsole(highlight=False)

    def emit(self, document: Any, render: Render) -> None:
        del document
        render(self._console)

    def write(self, text: str) -> None:
        self._console.out(plain(text), end="", highlight=False)


class JsonOutput(Output):
    """One JSON document for programs."""

    def __init__(self) -> None:
        self.notes: Console = PlainConsole(stderr=True)

    def emit(self, document: Any, render: Render) -> None:
        del render
        sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=2) + "\n")

    def write(self, text: str) -> None:
        """Do nothing: the document contains every piece."""


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A plain table that never breaks a word; `none yet` if there are no rows."""
    result = WordTable(
        title=title, title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False
    )
    for column in columns:
        result.add_column(column)
    for row in rows:
        result.add_row(*(cell if isinstance(cell, Text) else Text(plain(str(cell))) for cell in row))
    if not result.row_count:
        result.add_row("none yet")
    return result


def shows(renderable: Any) -> Render:
    """A render function that prints one thing."""
    return lambda console: console.print(renderable)


def short(digest: str) -> str:
    """The first digits of a digest, or a dash if it is empty."""
    return digest[:SHORT_DIGEST] or "-"


def print_error(error: TailorError) -> None:
    """Write the error to standard error: one line, and one more for each invalid field."""
    lines = [f"error: {error.reason}: {error.message}"]
    lines += [f"  {name}: {text}" for name, text in error.field_violations.items()]
    sys.stderr.write(plain("\n".join(lines)) + "\n")
