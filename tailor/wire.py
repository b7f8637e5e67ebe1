"""Convert between protobuf messages and the values of `tailor.values`.

Functions that build a message from all fields of a value, such as `from_labels`, rely on equal names in `tailor.values` and the protos.
"""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import models_pb2
from tailor.errors import InvalidArgument, Reason
from tailor.pipelines import Pipeline, resolve_pipeline
from tailor.storage.ref import Ref
from tailor.values import (
    Labels,
    MetricDefinition,
    Span,
    SpanKind,
)


def _value(kind: SpanKind) -> common_pb2.SpanKind.ValueType:
    return common_pb2.SpanKind.Value(f"SPAN_KIND_{kind.upper()}")


# Seconds of the years 1 to 9999, which a protobuf timestamp and Python's datetime can hold.
FIRST_SECOND, LAST_SECOND = -62_135_596_800, 253_402_300_799
NANOS = 1_000_000_000

SPAN_KINDS = {_value(kind): kind for kind in SpanKind}


def now() -> Timestamp:
    stamp = Timestamp()
    stamp.GetCurrentTime()
    return stamp


def from_datetime(moment: datetime | None) -> Timestamp | None:
    """Convert a time-zone-aware moment, or None to None."""
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def to_datetime(stamp: Timestamp) -> datetime:
    """Convert to a time-zone-aware moment in UTC. Raises InvalidArgument (INVALID_VALUE) for a moment outside of the years 1 to 9999."""
    if not _is_moment(stamp):
        raise InvalidArgument(Reason.INVALID_VALUE, "A time is outside of the years 1 to 9999.")
    return stamp.ToDatetime(UTC)


def enum_name(enum: Any, number: int, prefix: str = "") -> str:
    """The name of an enum's value without its prefix. A value that this release does not know is carried on as `UNKNOWN_<number>`.

    `enum` is a generated enum, such as `documents_pb2.Stage`. Enums are open: a newer service may send a value that is not listed yet.
    """
    value = enum.DESCRIPTOR.values_by_number.get(number)
    return f"UNKNOWN_{number}" if value is None else str(value.name).removeprefix(prefix)


def check_values(message: Message) -> None:
    """Raise InvalidArgument (INVALID_VALUE) for a value that decodes but cannot be stored: a NUL character, or an impossible time."""
    problem = next(_problems(message, message.DESCRIPTOR.name), None)
    if problem is not None:
        raise InvalidArgument(Reason.INVALID_VALUE, f"{problem}.")


def _problems(message: Message, path: str) -> Iterator[str]:
    if isinstance(message, Timestamp):
        if not _is_moment(message):
            yield f"{path} is outside of the years 1 to 9999"
        return
    for field, value in message.ListFields():
        for item in _items(field, value):
            if isinstance(item, str) and "\0" in item:
                yield f"{path}.{field.name} contains a NUL character"
            elif isinstance(item, Message):
                yield from _problems(item, f"{path}.{field.name}")


def _items(field: Any, value: Any) -> Iterator[Any]:
    """The values of a field: one, all of a repeated one, or the keys and values of a map."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        yield from value
        yield from value.values()
    elif field.is_repeated:
        yield from value
    else:
        yield value


def _is_moment(stamp: Timestamp) -> bool:
    return FIRST_SECOND <= stamp.seconds <= LAST_SECOND and 0 <= stamp.nanos < NANOS


def to_ref(message: common_pb2.ObjectRef) -> Ref:
    """Convert a reference. Raises InvalidArgument (INCOMPLETE_EVENT) if the URI is missing."""
    if not message.uri:
        raise InvalidArgument(Reason.INCOMPLETE_EVENT, "An object reference needs its `uri`.")
    return Ref(message.uri, message.sha256, message.size_bytes)


def from_ref(ref: Ref) -> common_pb2.ObjectRef:
    return common_pb2.ObjectRef(uri=ref.uri, sha256=ref.sha256, size_bytes=ref.size_bytes)


def to_labels(message: common_pb2.Labels) -> Labels:
    return Labels(message.source, message.department, message.confidentiality, message.publisher)


def from_labels(labels: Labels) -> common_pb2.Labels:
    return common_pb2.Labels(**asdict(labels))


def to_span(message: common_pb2.Span) -> Span | None:
    """Returns None for a kind that this release does not know."""
    kind = SPAN_KINDS.get(message.kind)
    return None if kind is None else Span(kind, message.number, message.start, message.end, message.level)


def from_span(span: Span) -> common_pb2.Span:
    return common_pb2.Span(kind=_value(span.kind), number=span.number, start=span.start, end=span.end, level=span.level)


def to_pipeline(message: models_pb2.SpecialistChanged) -> Pipeline:
    """A definition's stages with their recipes."""
    return resolve_pipeline(message.stages, message.recipe, message.recipes)


def to_metric(message: models_pb2.MetricDefinition) -> MetricDefinition:
    """Convert a metric; its kind is its name, and its parameters are `{}`, if they are empty."""
    return MetricDefinition(message.name, message.kind or message.name, message.parameters_json or "{}")
