"""Lists and single items by their columns: the one way in which commands show them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from google.protobuf.message import Message
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment

from tailor.cli.calls import name_items, pages
from tailor.cli.output import TEXT, WordTable, list_table_lines, on_one_line, plain, short, table
from tailor.cli.session import CommandSession
from tailor.columns import Columns, Digest


def headings(shown: Columns) -> tuple[str, ...]:
    """The names of columns."""
    return tuple(column.name for column in shown)


def cells(shown: Columns, items: Iterable[Any]) -> Iterator[list[str]]:
    """The texts of a row for each item, for a report: digests by their first digits."""
    for item in items:
        values = [column.cell(item) for column in shown]
        yield [short(value) if isinstance(value, Digest) else str(value) for value in values]


def item_table(title: str, shown: Columns, items: Iterable[Any]) -> WordTable:
    """A row for each item."""
    return table(title, headings(shown), [[column.cell(item) for column in shown] for item in items])


def list_table(shown: Columns, items: Iterable[Any]) -> WordTable:
    """A row for each item, for a command that lists them and nothing else."""
    result = item_table("", shown, items)
    result.is_list = True
    return result


@dataclass(frozen=True)
class TableSection:
    """A part of a report: a title, sentences, then a table. The terminal and files show the same ones."""

    title: str
    shown: Columns = field(default_factory=Columns)
    items: Iterable[Any] = ()
    sentences: Sequence[str] = ()

    @property
    def rows(self) -> tuple[tuple[str, ...], ...]:
        """The texts of the table."""
        return tuple(map(tuple, cells(self.shown, self.items)))

    def to_table(self) -> WordTable:
        """The table for a terminal."""
        return table(self.title, headings(self.shown), self.rows)

    def to_markdown(self, others: str = TEXT, empty: Sequence[str] = ()) -> Iterator[str]:
        """The lines of a report; `others` is the mark under every column but the first, `empty` what stands for no rows."""
        yield from ("", f"## {self.title}", "", *(f"- {on_one_line(sentence)}" for sentence in self.sentences))
        if rows := self.rows:
            yield from ("",) if self.sentences else ()
            yield from list_table_lines(headings(self.shown), rows, others)
        else:
            yield from empty


class Fields:
    """A line for each column of an item that has a value: its name, and the value whole."""

    def __init__(self, shown: Columns, item: Any) -> None:
        self._cells = [(column.name, str(column.cell(item))) for column in shown]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = max(len(name) for name, _ in self._cells)
        for name, text in self._cells:
            if text:
                heading = f"{name:<{width}}  " if console.is_terminal else f"{name}\t"
                yield Segment(f"{heading}{plain(text)}\n")


def emit_list(
    session: CommandSession,
    items: Sequence[Any],
    shown: Columns,
    *,
    document: Any,
    empty: str = "none yet",
    remarks: Iterable[Any] = (),
) -> None:
    """Write items as the command's result; `document` is what programs get.

    `remarks` and `empty` are for people: without a terminal they go to standard error, so that each line of the result is an item.
    """

    def remark(*parts: Any) -> tuple[Any, ...]:
        if session.output.is_terminal:
            return parts
        session.output.note(*parts)
        return ()

    def parts() -> Iterator[Any]:
        yield list_table(shown, items) if items else remark(empty)
        yield remark(*remarks)

    session.output.emit(document, parts())


def emit_pages(
    session: CommandSession, call: Callable[..., Any], request: Message, shown: Columns, limit: int | None = None
) -> None:
    """Write what a service's method lists, all of it or the first items: a document with their list under its name."""
    items = list(islice(pages(call, request), limit))
    emit_list(session, items, shown, document={name_items(request): items})
