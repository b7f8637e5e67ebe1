"""Events as CloudEvents 1.0 in Kafka's binary mode: attributes in headers, the protobuf message as the value. Also the ids of events.

Recorded events and derived ids depend on this format: a change makes old events unreadable, or makes them look new.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from tailor.errors import InvalidArgument, Reason
from tailor.wire import check_values

# Namespace of all derived ids; changing it would make old events look new.
NAMESPACE = uuid.UUID("6f1d9bd2-6d7e-5b2c-9f55-0c0c1f3a7a11")
CONTENT_TYPE = "application/protobuf"

M = TypeVar("M", bound=Message)


@dataclass(frozen=True)
class Event:
    """One record of a topic. The value of a tombstone is None."""

    topic: str
    key: str
    value: bytes | None
    headers: Mapping[str, str] = field(default_factory=dict)
    partition: int = 0
    offset: int = 0
    timestamp_ms: int = 0

    @property
    def event_id(self) -> str:
        """The producer's id, or one that is derived from the record's position if there is none."""
        return self.headers.get("ce_id") or derive_id("evt", self.topic, self.partition, self.offset)


def headers_for(topic: str, message: Message, source: str, event_id: str) -> dict[str, str]:
    """The CloudEvents attributes of a message, as header names and values."""
    return {
        "ce_specversion": "1.0",
        "ce_id": event_id,
        "ce_type": topic,
        "ce_source": f"/tailor/{source}",
        "ce_time": datetime.now(UTC).isoformat(),
        "ce_dataschema": message.DESCRIPTOR.full_name,
        "content-type": CONTENT_TYPE,
    }


def decode(event: Event, message_type: type[M]) -> M:
    """Parse the event's message. Raises InvalidArgument: UNDECODABLE, or INVALID_VALUE for a value that nobody could store."""
    if event.value is None:
        raise InvalidArgument(Reason.UNDECODABLE, "The event is a tombstone; a value was expected.")
    message = message_type()
    try:
        message.ParseFromString(event.value)
    except DecodeError:
        raise InvalidArgument(Reason.UNDECODABLE, f"The value is not a {message.DESCRIPTOR.full_name}.") from None
    check_values(message)
    return message


def derive_id(prefix: str, *parts: object) -> str:
    """Derive an id: the same parts always give the same one. `prefix_` and 32 hexadecimal digits (UUID version 5)."""
    return f"{prefix}_{uuid.uuid5(NAMESPACE, chr(31).join(map(str, (prefix, *parts)))).hex}"


def new_id(prefix: str) -> str:
    """Draw a random id: `prefix_` and 32 hexadecimal digits."""
    return f"{prefix}_{uuid.uuid4().hex}"
