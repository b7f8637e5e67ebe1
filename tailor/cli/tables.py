"""Columns of lists, by the fields of messages: the one way in which commands list items and show one.

A specification is `NAME`, `NAME=FIELD.FIELD`, or a pair of a name and a function of the item. A field is shown by its type: an enum as a
word, a time to the second, a digest whole or by its first digits, several values with commas between them, an absent one as nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.segment import Segment, Segments

from tailor.cli.messages import to_dict
from tailor.cli.output import Render, plain, table
from tailor.cli.session import CommandSession
from tailor.cli.whole_words import Digest, WordTable


class ShownField(NamedTuple):
    """A column's name, and the cell of an item."""

    name: str
    cell: Callable[[Any], object]


Specification = str | tuple[str, Callable[[Any], object]]


def columns(*specifications: Specification) -> tuple[ShownField, ...]:
    """The columns of specifications."""
    return tuple(_column(item) if isinstance(item, str) else ShownField(*item) for item in specifications)


def _column(specification: str) -> ShownField:
    name, _, path = specification.partition("=")
    return ShownField(name, lambda item: show_field(item, path or name.replace(" ", "_")))


def show_field(item: Message, path: str) -> object:
    """A message's field as a cell; the path leads through other messages."""
    *parents, name = path.split(".")
    for parent in parents:
        item = getattr(item, parent)
    field: Any = item.DESCRIPTOR.fields_by_name[name]
    value = getattr(item, name)
    if field.is_repeated:
        return ", ".join(map(str, value))
    if field.has_presence and not item.HasField(name):
        return ""
    if isinstance(value, Timestamp):
        return moment(value)
    if field.enum_type is not None:
        prefix = field.enum_type.values_by_number[0].name.removesuffix("UNSPECIFIED")
        known = field.enum_type.values_by_number.get(value)
        return known.name.removeprefix(prefix).lower().replace("_", " ") if known else f"unknown {value}"
    if isinstance(value, bool):
        return "yes" if value else ""
    return Digest(value) if name.endswith("digest") else value


def moment(time: Timestamp) -> str:
    """A time in UTC, to the second."""
    return time.ToDatetime().strftime("%Y-%m-%d %H:%M:%S")


def headings(shown: Sequence[ShownField]) -> tuple[str, ...]:
    """The names of columns."""
    return tuple(column.name for column in shown)


def cells(shown: Sequence[ShownField], items: Iterable[Any]) -> tuple[tuple[str, ...], ...]:
    """The texts of a row for each item."""
    return tuple(tuple(str(column.cell(item)) for column in shown) for item in items)


def item_table(title: str, shown: Sequence[ShownField], items: Iterable[Any]) -> WordTable:
    """A row for each item."""
    return table(title, headings(shown), [[column.cell(item) for column in shown] for item in items])


def list_table(shown: Sequence[ShownField], items: Sequence[Any]) -> WordTable:
    """A row for each item, for a command that lists them and nothing else."""
    result = item_table("", shown, items)
    result.is_list = True
    return result


def emit_list(
    session: CommandSession,
    items: Sequence[Any],
    shown: Sequence[ShownField],
    *,
    document: Any,
    empty: str = "none yet",
    remarks: Render | None = None,
) -> None:
    """Write items as the command's result; `document` is what programs get.

    `remarks` and `empty` are for people: without a terminal they go to standard error, so that each line of the result is an item.
    """

    def render(console: Console) -> None:
        side = console if console.is_terminal else session.output.notes
        if items:
            console.print(list_table(shown, items))
        else:
            side.print(empty)
        if remarks is not None:
            remarks(side)

    session.output.emit(document, render)


def emit_items(
    session: CommandSession, name: str, items: Sequence[Any], shown: Sequence[ShownField], remarks: Render | None = None
) -> None:
    """Write messages as the command's result: a document with their list under a name."""
    emit_list(session, items, shown, document={name: [to_dict(item) for item in items]}, remarks=remarks)


def print_fields(console: Console, item: Any, shown: Sequence[ShownField]) -> None:
    """A line for each column that has a value: its name, and the value whole."""
    width = max(len(column.name) for column in shown)
    for column in shown:
        cell = column.cell(item)
        text = cell.whole if isinstance(cell, Digest) else str(cell)
        if text:
            name = f"{column.name:<{width}}  " if console.is_terminal else f"{column.name}\t"
            console.print(Segments([Segment(f"{name}{plain(text)}\n")]), end="")
