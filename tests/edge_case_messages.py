"""Messages that decode and are odd: unknown enum values, NUL, impossible times, huge numbers, long texts."""

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

TYPES = FieldDescriptor
INT32, INT64 = 2**31, 2**63
TEXTS = st.one_of(
    st.sampled_from(
        ["", "a", "doc_1", "NUL\0", "x" * 70, "y" * 5_000, "é" * 300, "s3://models/a/b", "../../x", "DROP"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
)
DOUBLES = st.one_of(st.sampled_from([0.0, -0.0, 1e308, -1e308, 1e-320]), st.floats())
NUMBERS: dict[int, Any] = {
    TYPES.TYPE_INT32: st.one_of(st.sampled_from([0, 1, -1, INT32 - 1, -INT32]), st.integers(-INT32, INT32 - 1)),
    TYPES.TYPE_INT64: st.one_of(st.sampled_from([0, 1, -1, INT64 - 1, -INT64]), st.integers(-INT64, INT64 - 1)),
    TYPES.TYPE_UINT32: st.integers(0, 2 * INT32 - 1),
    TYPES.TYPE_UINT64: st.integers(0, 2 * INT64 - 1),
    TYPES.TYPE_FLOAT: st.floats(width=32),
    TYPES.TYPE_DOUBLE: DOUBLES,
    TYPES.TYPE_BOOL: st.booleans(),
    TYPES.TYPE_STRING: TEXTS,
    TYPES.TYPE_BYTES: st.binary(max_size=20),
    TYPES.TYPE_ENUM: st.one_of(st.integers(0, 5), st.sampled_from([77, 999, INT32 - 1, -1])),
}


@st.composite
def odd_messages(draw: Any, message_type: type[Message]) -> Message:
    """A message of a type, with any of its fields set to anything that its encoding allows."""
    message = message_type()
    fill(draw, message, depth=0)
    return message


def fill(draw: Any, message: Message, depth: int) -> None:
    """Set fields of a message. Most are set, so that a handler gets past its first check."""
    for field in message.DESCRIPTOR.fields:
        if depth < 4 and draw(st.integers(0, 5)):
            _set(draw, message, field, depth)


def _set(draw: Any, message: Message, field: Any, depth: int) -> None:
    target = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        _fill_map(draw, target, field.message_type, depth)
    elif field.is_repeated:
        for _ in range(draw(st.integers(0, 2))):
            if field.message_type is None:
                target.append(draw(NUMBERS[field.type]))
            else:
                fill(draw, target.add(), depth + 1)
    elif field.message_type is not None:
        target.SetInParent()
        fill(draw, target, depth + 1)
    else:
        setattr(message, field.name, draw(NUMBERS[field.type]))


def _fill_map(draw: Any, target: Any, entry: Any, depth: int) -> None:
    key = draw(NUMBERS[entry.fields_by_name["key"].type])
    value = entry.fields_by_name["value"]
    if value.message_type is None:
        target[key] = draw(NUMBERS[value.type])
    else:
        fill(draw, target[key], depth + 1)
