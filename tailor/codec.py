"""Convert frozen dataclasses to protobuf messages and to plain values, for JSON and SQL, by the names of their fields, and back.

All directions take `given` values by name, which win: for a field whose names differ, or that one side derives. A dataclass's field that
the other side lacks keeps its default, and a message's field that the dataclass lacks is left out.
"""

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from functools import cache, partial
from typing import Any, TypeVar

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp

from tailor.errors import InvalidArgument, Reason
from tailor.wire import from_datetime, to_datetime

T = TypeVar("T")
M = TypeVar("M", bound=Message)
Convert = Callable[[Any], Any]
# A FieldDescriptor: the stubs of protobuf have two classes of them, and None if a field has a message type or an enum.


def decode(cls: type[T], message: Message, /, **given: Any) -> T:
    """Make a dataclass of a message.

    A field with a default gets it if it is absent, or, without presence, if it is zero or empty. Raises InvalidArgument (INVALID_VALUE) for
    an impossible time, and for an enum's value that this release does not know.
    """
    return cls(**_read(cls, message, given), **given)


def update(value: T, message: Message, /, **given: Any) -> T:
    """A copy of a dataclass with the fields that are set in a message, by the rules of `decode`."""
    return dataclasses.replace(value, **_read(type(value), message, given), **given)  # type: ignore[type-var]


def encode(cls: type[M], value: Any, /, **given: Any) -> M:
    """Make a message of a dataclass. None leaves a field absent."""
    writers = _writers(cls)  # type: ignore[arg-type]
    values = {name: write(getattr(value, name)) for name, write in writers.items() if _has(value, name, given)}
    return cls(**values, **given)


def load(cls: type[T], plain: Mapping[str, Any], /, **given: Any) -> T:
    """Make a dataclass of what `dump` wrote. Raises ValueError for an enum's value that this release does not know."""
    loaders = _loaders(cls)  # type: ignore[arg-type]
    values = {name: read(plain[name]) for name, read in loaders.items() if name in plain and name not in given}
    return cls(**values, **given)


def dump(value: Any) -> Any:
    """The plain form of a value: a dataclass as a dict of its fields, an enum's member as its value, tuples and sets as lists."""
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value):
        return {field.name: dump(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {dump(key): dump(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(dump, value))
    return [dump(item) for item in value] if isinstance(value, tuple | list) else value


@cache
def _loaders(cls: type) -> dict[str, Convert]:
    hints = typing.get_type_hints(cls)
    return {field.name: _loader(hints[field.name]) for field in dataclasses.fields(cls)}


@cache
def _loader(hint: Any) -> Convert:
    if isinstance(hint, types.UnionType):
        kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        read = _loader(kinds[0]) if len(kinds) == 1 else partial(_load_one_of, kinds)
        return lambda plain: None if plain is None else read(plain)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Mapping or origin is dict:
        read_key, read_value = map(_loader, arguments)
        return lambda plain: {read_key(key): read_value(item) for key, item in plain.items()}
    if origin is tuple and arguments[-1] is not ...:
        readers = [*map(_loader, arguments)]
        return lambda plain: tuple(read(item) for read, item in zip(readers, plain, strict=True))
    if origin in (tuple, frozenset):
        read_item, collect = _loader(arguments[0]), _collector(hint)
        return lambda plain: collect(map(read_item, plain))
    if dataclasses.is_dataclass(hint):
        return partial(load, hint)  # type: ignore[arg-type]
    return hint if isinstance(hint, type) and issubclass(hint, Enum) else _same


def _load_one_of(kinds: Sequence[type], plain: Mapping[str, Any]) -> Any:
    """The first of the dataclasses whose fields are all there, which is the one that `dump` had."""
    return load(next(kind for kind in kinds if _loaders(kind).keys() <= plain.keys()), plain)


def _has(value: Any, name: str, given: Mapping[str, Any]) -> bool:
    return name not in given and getattr(value, name, None) is not None


def _read(cls: type, message: Message, given: Mapping[str, Any]) -> dict[str, Any]:
    readers = _readers(cls, type(message))  # type: ignore[arg-type]
    return {
        name: read(getattr(message, name))
        for name, (is_set, read) in readers.items()
        if name not in given and is_set(message)
    }


@cache
def _readers(cls: type, message: type[Message]) -> dict[str, tuple[Callable[[Message], bool], Convert]]:
    """For each field that both have: whether to read it, and how."""
    hints, known = typing.get_type_hints(cls), dict[str, Any](message.DESCRIPTOR.fields_by_name)
    return {
        field.name: (_setness(field, known[field.name]), _reader(hints[field.name], known[field.name]))
        for field in dataclasses.fields(cls)
        if field.name in known
    }


def _setness(field: "dataclasses.Field[Any]", known: Any) -> Callable[[Message], bool]:
    if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
        return lambda message: True
    name = field.name
    return (
        (lambda message: message.HasField(name)) if known.has_presence else lambda message: bool(getattr(message, name))
    )


def _reader(hint: Any, known: Any) -> Convert:
    kind = without_none(hint)
    arguments = typing.get_args(kind)
    if _is_map(known):
        read_value = _item_reader(arguments[1], known.message_type.fields_by_name["value"])
        return lambda raw: {key: read_value(item) for key, item in raw.items()}
    if known.is_repeated:
        read_item, collect = _item_reader(arguments[0], known), _collector(kind)
        return lambda raw: collect(map(read_item, raw))
    return _item_reader(kind, known)


def _item_reader(hint: Any, known: Any) -> Convert:
    kind = without_none(hint)
    if known.message_type is Timestamp.DESCRIPTOR:
        return to_datetime
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return partial(decode, kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return partial(_read_member, _members(kind, known)) if known.enum_type else kind
    return partial(_read_member, _words(known)) if kind is str and known.enum_type is not None else _same


def _members(kind: type[Enum], known: Any) -> dict[int, Enum]:
    """The members by their numbers in the proto, whose names begin with that of the enum."""
    numbers = known.enum_type.values_by_name
    prefix = _prefix(known.enum_type.name)
    return {numbers[f"{prefix}{member.name}"].number: member for member in kind if f"{prefix}{member.name}" in numbers}


def _words(known: Any) -> dict[int, str]:
    """The words that stand for an enum's values: `retire` of `ON_ERASURE_RETIRE`."""
    prefix = _prefix(known.enum_type.name)
    return {value.number: value.name.removeprefix(prefix).lower() for value in known.enum_type.values}


def _read_member(members: Mapping[int, T], number: int) -> T:
    if number not in members:
        known = ", ".join(str(member) for member in members.values())
        raise InvalidArgument(Reason.INVALID_VALUE, f"This release does not know the value {number}, but {known}.")
    return members[number]


@cache
def _writers(cls: type[Message]) -> dict[str, Convert]:
    return {known.name: _writer(known) for known in cls.DESCRIPTOR.fields}


def _writer(known: Any) -> Convert:
    if _is_map(known):
        write_value = _item_writer(known.message_type.fields_by_name["value"])
        return lambda value: {key: write_value(item) for key, item in value.items()}
    write_item = _item_writer(known)
    return (lambda value: map(write_item, value)) if known.is_repeated else write_item


def _item_writer(known: Any) -> Convert:
    if known.enum_type is not None:
        prefix, numbers = _prefix(known.enum_type.name), known.enum_type.values_by_name
        return lambda value: _number(value, prefix, numbers)
    return _same if known.message_type is None else partial(_write_message, GetMessageClass(known.message_type))


def _number(value: Any, prefix: str, numbers: Mapping[str, Any]) -> int:
    """The number of an enum's member, or of its word."""
    if isinstance(value, int):
        return value
    return int(numbers[prefix + (value.name if isinstance(value, Enum) else value.upper())].number)


def _write_message(cls: type[Message], value: Any) -> Message | None:
    if isinstance(value, datetime):
        return from_datetime(value)
    return value if isinstance(value, Message) else encode(cls, value)


def _same(value: Any) -> Any:
    return value


def _is_map(known: Any) -> bool:
    return known.message_type is not None and known.message_type.GetOptions().map_entry


def _collector(kind: Any) -> Convert:
    return frozenset if typing.get_origin(kind) is frozenset else tuple


def without_none(hint: Any) -> Any:
    """The type of `X | None`."""
    if isinstance(hint, types.UnionType):
        return next(kind for kind in typing.get_args(hint) if kind is not type(None))
    return hint


def _prefix(name: str) -> str:
    """`RUN_STATE_` of `RunState`."""
    return "".join("_" * (number > 0 and letter.isupper()) + letter for number, letter in enumerate(name)).upper() + "_"
