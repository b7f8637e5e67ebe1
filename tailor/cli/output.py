"""Output of commands: a layout for people, or one JSON or YAML document on standard output."""

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from html import escape
from typing import Any

import yaml
from google.protobuf.message import Message
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

from tailor.cli.messages import to_dict
from tailor.columns import Digest
from tailor.errors import TailorError

# The spaces of rich's tables next to each cell.
PADDING = 2
# A cell that would need more lines is easier to read in a list.
MAX_LINES = 6
SHORT_DIGEST = 12


class DigestText(Text):
    """A digest as a cell: its first digits on a terminal, whole elsewhere; a dash if it is empty."""

    def __init__(self, digest: str) -> None:
        super().__init__(digest[:SHORT_DIGEST] or "-")
        self.whole = digest


class WordTable(Table):
    """A table that breaks lines between words only.

    Without a terminal, each row is one line, with tabs between its cells. On a terminal, long cells take several lines; if the words do
    not fit next to each other, or a cell would take too many, each row becomes a list of `column  value`.
    """

    is_list = False
    """True if it is the whole result of a command: without a terminal, it has items only, and no heading."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not console.is_terminal:
            yield Segment("".join(f"{line}\n" for line in self._plain_lines()))
            return
        least = [_measure(column, str.split) for column in self.columns]
        room = options.max_width - PADDING * len(least)
        widths = share_width(least, [_measure(column, str.splitlines) for column in self.columns], room)
        if sum(least) > room or self._count_lines(console, widths) > MAX_LINES:
            yield from self._lists(console, options)
            return
        for column, width in zip(self.columns, widths, strict=True):
            column.width = width
        yield from super().__rich_console__(console, options.update(width=room + PADDING * len(least)))

    def _plain_lines(self) -> Iterator[str]:
        if not self.is_list:
            yield from filter(None, (str(self.title or ""), "\t".join(str(column.header) for column in self.columns)))
        for row in zip(*(column.cells for column in self.columns), strict=True):
            yield "\t".join(_on_one_line(cell) for cell in row)

    def _count_lines(self, console: Console, widths: Sequence[int]) -> int:
        """The lines of the tallest cell."""
        columns = zip(self.columns, widths, strict=True)
        cells = ((cell, width) for column, width in columns for cell in column.cells if isinstance(cell, Text))
        return max((len(cell.wrap(console, width)) for cell, width in cells if width), default=0)

    def _lists(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        """The title, then every row with a line for each column that has a text."""
        if self.title:
            yield from console.render(Text(f"{self.title}\n", style="bold", end=""), options)
        names = max(cell_len(str(column.header)) for column in self.columns)
        room = options.max_width - names - 2 * PADDING
        values = max(room, *(_measure(column, str.split) for column in self.columns))
        for row in zip(*(column.cells for column in self.columns), strict=True):
            block = Table.grid(Column(style="dim", width=names), Column(width=values), padding=(0, PADDING))
            for column, cell in zip(self.columns, row, strict=True):
                if str(cell):
                    block.add_row(str(column.header), cell)
            yield from console.render(block, options.update(width=names + values + 4 * PADDING))
            yield Segment.line()


def share_width(least: Sequence[int], natural: Sequence[int], room: int) -> list[int]:
    """Widths between `least` and `natural` that take at most `room` together; the widest columns shrink first."""
    widths = list(least)
    for limit in range(max(natural) + 1):
        wider = [max(low, min(high, limit)) for low, high in zip(least, natural, strict=True)]
        if sum(wider) > room:
            break
        widths = wider
    return widths


def _on_one_line(cell: object) -> str:
    return " ".join((cell.whole if isinstance(cell, DigestText) else str(cell)).split())


def _measure(column: Column, split: Callable[[str], list[str]]) -> int:
    """The width of the widest part of a column's texts."""
    texts = [cell.plain if isinstance(cell, Text) else str(cell) for cell in (column.header, *column.cells)]
    return max((cell_len(part) for text in texts for part in split(text)), default=0)


# Names, comments, publishers' ids and models' answers could write to the clipboard or hide lines with them.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
REPLACEMENT = "\ufffd"


class OutputFormat(Enum):
    """How a command writes its result."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


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

    def show(self, *parts: Any) -> None:
        """Print parts of a result, one below the other: texts as they are, which the terminal may break into lines, and renderables.

        A part may be an iterator of parts, or None.
        """
        for part in parts:
            if isinstance(part, Iterator | list | tuple):
                self.show(*part)
            elif isinstance(part, str | Text):
                self.print(part, markup=False, highlight=False, soft_wrap=True)
            elif part is not None:
                self.print(part)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The parts of what is printed."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(plain(segment.text), segment.style)


def plain(text: str) -> str:
    """The text with a replacement for each control character but line ends and tabs."""
    return CONTROL.sub(REPLACEMENT, text)


class Output:
    """Where a command's result goes. Progress always goes to standard error, through `notes`."""

    def __init__(self, form: OutputFormat = OutputFormat.TABLE) -> None:
        self.notes = PlainConsole(stderr=True)
        self._form = form
        self._console = PlainConsole(highlight=False)

    @property
    def is_terminal(self) -> bool:
        """True if people read the result as it is written."""
        return self._console.is_terminal

    def emit(self, document: Any, *parts: Any) -> None:
        """Write the result, a message or plain data with messages in it, or its parts for people. Call it once."""
        if self._form is OutputFormat.TABLE:
            self._console.show(*parts)
        elif self._form is OutputFormat.JSON:
            sys.stdout.write(json.dumps(_to_plain(document), ensure_ascii=False, indent=2) + "\n")
        else:
            sys.stdout.write(_to_yaml(_to_plain(document)))

    def note(self, *parts: Any) -> None:
        """Write parts for people to standard error."""
        self.notes.show(*parts)

    def emit_each(self, document: Any) -> None:
        """Write one of many results: a line of JSON, or a YAML document."""
        is_yaml = self._form is OutputFormat.YAML
        sys.stdout.write(f"---\n{_to_yaml(document)}" if is_yaml else json.dumps(document, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def write(self, text: str) -> None:
        """Show a piece of a result that is still being generated. A JSON or YAML document contains every piece."""
        if self._form is OutputFormat.TABLE:
            self._console.out(plain(text), end="", highlight=False)

    def write_aside(self, text: str) -> None:
        """Show a piece of a text that accompanies a result, such as a thought, on standard error."""
        if self._form is OutputFormat.TABLE:
            self.notes.out(plain(text), end="", style="dim", highlight=False)


def _to_plain(document: Any) -> Any:
    if isinstance(document, Message):
        return to_dict(document)
    if isinstance(document, Mapping):
        return {name: _to_plain(value) for name, value in document.items()}
    return (
        [_to_plain(value) for value in document]
        if isinstance(document, Sequence) and not isinstance(document, str)
        else document
    )


def _to_yaml(document: Any) -> str:
    # Through JSON, because subclasses of texts and numbers are unknown to YAML.
    return str(yaml.safe_dump(json.loads(json.dumps(document)), allow_unicode=True, sort_keys=False))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> WordTable:
    """A table that never breaks a word; `none yet` if there are no rows."""
    result = WordTable(
        title=Text(title, style="bold", no_wrap=True, overflow="ignore"),
        title_justify="left",
        header_style="dim",
        box=None,
        pad_edge=False,
    )
    for column in columns:
        result.add_column(column)
    for row in rows:
        result.add_row(*map(_to_text, row))
    if not result.row_count:
        result.add_row("none yet")
    return result


def _to_text(cell: object) -> Text:
    if isinstance(cell, Text):
        return cell
    return DigestText(cell) if isinstance(cell, Digest) else Text(plain(str(cell)))


def short(digest: str) -> str:
    """The first digits of a digest, or a dash if it is empty."""
    return digest[:SHORT_DIGEST] or "-"


def bold(name: str, rest: str = "") -> Text:
    """A line that begins with a name in bold."""
    return Text.assemble((name, "bold"), rest)


def print_error(error: TailorError) -> None:
    """Write the error to standard error: one line, and one more for each invalid field."""
    lines = [f"error: {error.reason}: {error.message}"]
    lines += [f"  {name}: {text}" for name, text in error.field_violations.items()]
    sys.stderr.write(plain("\n".join(lines)) + "\n")


TEXT, FIGURE = "---", "---:"


def list_table_lines(columns: Sequence[str], rows: Iterable[Sequence[object]], others: str = TEXT) -> Iterator[str]:
    """The lines of a table; `others` is the mark under every column but the first."""
    marks = [TEXT, *([others] * (len(columns) - 1))]
    for row in (columns, marks, *rows):
        yield f"| {' | '.join(on_one_line(str(cell)) for cell in row)} |"


def on_one_line(text: str) -> str:
    """Text that neither ends a line of Markdown nor a cell, and is not read as HTML."""
    return escape(" ".join(text.split()), quote=False).replace("|", "\\|")
