"""Tables whose words stay whole, so that ids, names and addresses can be copied and searched."""

from collections.abc import Callable, Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

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
