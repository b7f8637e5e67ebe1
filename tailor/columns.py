"""Columns of lists and pages: how a value is read and how it is shown, once for the command line and the console.

A specification is a text with commas between its columns. A column is `NAME`, or `NAME=PATH`; `NAME=PATH or PATH or 'text'` for the first
that is there; any of them with `|TEMPLATE` at its end, such as `share|{:.1%}`, or `|words` for a code whose underscores become spaces. A
path leads through messages, and through rows by their places, such as `1.documents`. A value is shown by its type: an enum as a word, a
time to the second, several values with commas between them, an absent one as nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from tailor.api.common.v1 import common_pb2

Cell = Callable[[Any], object]
MAX_LISTED_CHARS = 200
NUMBERS = {
    FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64,
    FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE,
}  # fmt: skip


class Digest(str):
    """A digest, which a terminal shows by its first digits."""

    __slots__ = ()


@dataclass(frozen=True)
class Column:
    """A column's name, the cell of an item, and the name by which its list is ordered by it, if the list knows that."""

    name: str
    cell: Cell
    order: str
    is_number: bool = False
    is_time: bool = False


class Columns(tuple[Column, ...]):
    """The columns of a list."""

    __slots__ = ()

    def pick(self, names: str) -> "Columns":
        """The columns with these names, in this order; there are commas between them. Raises KeyError."""
        known = {column.name: column for column in self}
        return Columns(known[name] for name in names.split(", "))


def columns(message: type[Message] | None, *specifications: str | tuple[str, Cell] | Column) -> Columns:
    """The columns of specifications, of pairs of a name and a function that gives the cell, and columns as they are.

    Raises KeyError for a field that the message does not have. Without a message, the items are of different types, or are rows.
    """
    return Columns(column for item in specifications for column in _list_columns(message, item))


def number(name: str, count: Callable[[Any], float], template: str = "{}") -> Column:
    """A column of numbers that a function gives."""
    return Column(name, lambda item: template.format(count(item)), _to_order(name), is_number=True)


def _list_columns(message: type[Message] | None, specification: str | tuple[str, Cell] | Column) -> Iterator[Column]:
    if isinstance(specification, Column):
        yield specification
    elif isinstance(specification, tuple):
        name, text = specification
        yield Column(name, text, _to_order(name))
    else:
        yield from (_parse(message, text) for text in specification.split(", "))


def _parse(message: type[Message] | None, text: str) -> Column:
    rule, _, template = text.partition("|")
    name, _, rest = rule.partition("=")
    choices = (rest or name.replace(" ", "_")).split(" or ")
    paths = [choice for choice in choices if not choice.startswith("'")]
    field, *_ = [find_field(message.DESCRIPTOR, path) if message else None for path in paths]
    is_time = field is not None and field.message_type is not None and field.message_type.name == "Timestamp"
    is_number = is_time or (field is not None and field.cpp_type in NUMBERS and not field.is_repeated)

    def cell(item: Any) -> object:
        value = next(filter(None, (_choose(item, choice) for choice in choices)), _choose(item, choices[-1]))
        if isinstance(value, Timestamp):
            return moment(value)
        if template == "words":
            return str(value).replace("_", " ")
        return template.format(value) if template and value != "" else value

    return Column(name, cell, paths[0].rpartition(".")[2], is_number, is_time)


def _to_order(name: str) -> str:
    return name.replace("-", "_").replace(" ", "_")


def list_names(request: type[Message]) -> common_pb2.ListNames:
    """The names that a list knows, by the class of its requests; none if they have no `query`."""
    field = request.DESCRIPTOR.fields_by_name.get("query")
    return field.GetOptions().Extensions[common_pb2.list] if field else common_pb2.ListNames()


def list_values(request: type[Message], message: Message, **given: Any) -> dict[str, Any]:
    """The columns `listed` and `searched` of a message: what its list is ordered and filtered by, and what a search reads.

    `given` are the values of names that the message does not have.
    """
    names = list_names(request)

    def find(name: str) -> Any:
        value = (
            given[name]
            if name in given
            else _read_field(message, name)
            if name in message.DESCRIPTOR.fields_by_name
            else ""
        )
        return value.ToDatetime().isoformat(timespec="microseconds") if isinstance(value, Timestamp) else value

    return {
        "listed": {name: _plain(find(name)) for name in sorted({*names.order_by.split(), *names.filters.split()})},
        "searched": " ".join(str(find(name)) for name in names.search.split()).replace("\0", ""),
    }


def _plain(value: Any) -> str | float:
    if isinstance(value, int | float):
        return value if isfinite(value) else 0
    return str(value).replace("\0", "").lower()[:MAX_LISTED_CHARS]


def find_field(message: Any, path: str) -> FieldDescriptor:
    """The field at a path, by the descriptor of a message. Raises KeyError."""
    *parents, name = path.split(".")
    for parent in parents:
        message = message.fields_by_name[parent].message_type
    field: FieldDescriptor = message.fields_by_name[name]
    return field


def read(item: Any, path: str) -> Any:
    """The value at a path: an enum as a word, True as `yes`; an empty text for what is absent."""
    step, _, rest = path.partition(".")
    key = step if isinstance(item, Mapping) else int(step) if step.isdigit() else ""
    value = _read_field(item, step) if isinstance(item, Message) else item[key]
    return read(value, rest) if rest and value != "" else value


def _read_field(item: Message, name: str) -> Any:
    field: Any = item.DESCRIPTOR.fields_by_name[name]
    value = getattr(item, name)
    if field.is_repeated:
        return ", ".join(map(str, value))
    if field.has_presence and not item.HasField(name):
        return ""
    if field.enum_type is not None:
        return word(field.enum_type, value)
    if isinstance(value, bool):
        return "yes" if value else ""
    return Digest(value) if name.endswith("digest") else value


def word(enum: Any, value: int) -> str:
    """An enum's value for people: `RUN_STATE_QUEUED` is `queued`. One that this release does not know is `unknown 9`."""
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    known = enum.values_by_number.get(value)
    return known.name.removeprefix(prefix).lower().replace("_", " ") if known else f"unknown {value}"


def moment(time: Timestamp) -> str:
    """A time in UTC, to the second."""
    return time.ToDatetime().strftime("%Y-%m-%d %H:%M:%S")


def _choose(item: Any, choice: str) -> Any:
    return choice.strip("'") if choice.startswith("'") else read(item, choice)
