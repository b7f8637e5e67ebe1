"""Protobuf messages as plain data for JSON: snake_case fields, integers as numbers, enum values by name.

`json_format` writes 64-bit integers as strings; people and `jq` want numbers.
"""

import base64
import math
from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp


def to_dict(message: Message) -> dict[str, Any]:
    """Every field of the message. Unset messages and numbers that are not finite are None, times RFC 3339 strings, and bytes base64."""
    return {field.name: _field(message, field) for field in message.DESCRIPTOR.fields}


def _field(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        entry = field.message_type.fields_by_name["value"]
        return {key: _value(entry, value[key]) for key in sorted(value)}
    if field.is_repeated:
        return [_value(field, item) for item in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    return _value(field, value)


def _value(field: Any, value: Any) -> Any:
    if isinstance(value, Timestamp):
        return value.ToJsonString()
    if isinstance(value, Message):
        return to_dict(value)
    if isinstance(value, float) and not math.isfinite(value):
        # JSON has no such numbers.
        return None
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else value
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def describe_removed(removed: Mapping[str, int]) -> str:
    """What was left out of files, such as `navigation 1,204, running lines 88 characters`."""
    counts = ", ".join(f"{kind.replace('_', ' ')} {count:,}" for kind, count in sorted(removed.items()))
    return f"{counts} characters" if counts else "nothing"
