"""`tailor events`: the decoded events of any topic, as JSON lines."""

import json
import sys
import time
from collections.abc import Iterator
from enum import Enum
from importlib import import_module
from typing import Annotated, Any

import typer
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from tailor.cli.messages import to_dict
from tailor.cli.session import session_of
from tailor.errors import InvalidArgument, Reason
from tailor.events.topics import Topic, load_topics

MODULES = ("documents", "drafts", "models")

app = typer.Typer()


class Zone(Enum):
    """How to show records of the raw zone, which hold personal data: only their sizes, or their keys and values too."""

    SIZES = "sizes"
    VALUES = "values"


@app.command()
def events(
    context: typer.Context,
    topic: Annotated[str, typer.Argument(help="A topic, such as `document.anonymized.v1`.")],
    *,
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="Start with the oldest event.")] = False,
    maximum: Annotated[int | None, typer.Option("--max", min=1, help="Stop after this many events.")] = None,
    idle_seconds: Annotated[
        float | None, typer.Option(min=0.1, help="Stop when no event has come for this long; by default, never.")
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Also show keys and values of the raw zone. They contain personal data.")
    ] = False,
) -> None:
    """Print the decoded events of a topic, one JSON object per line."""
    from tailor.cli.reader import Start, TopicReader

    session = session_of(context)
    entry = find_topic(topic)
    zone = Zone.VALUES if raw else Zone.SIZES
    start = Start.BEGINNING if from_beginning else Start.END
    with TopicReader(session.connections.kafka_reader(), [topic], start) as reader:
        for record in _records(reader.poll, maximum, idle_seconds):
            sys.stdout.write(json.dumps(to_line(entry, record, zone), ensure_ascii=False) + "\n")
            sys.stdout.flush()


def find_topic(name: str) -> Topic:
    """The topic's entry in `proto/topics.yaml`. Raises InvalidArgument if there is none."""
    topics = load_topics()
    if name not in topics:
        raise InvalidArgument(Reason.UNKNOWN_TOPIC, f"Unknown topic {name}. Topics: {', '.join(topics)}.")
    return topics[name]


def to_line(topic: Topic, record: Any, zone: Zone) -> dict[str, Any]:
    """One record of kafka-python as plain data."""
    place = {
        "topic": topic.name,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp_ms": record.timestamp,
    }
    if topic.raw_zone and zone is Zone.SIZES:
        names = [name for name, _ in record.headers]
        return place | {"headers": names, "key_bytes": len(record.key or b""), "value_bytes": len(record.value or b"")}
    headers = {name: _text(value) for name, value in record.headers}
    return place | {"key": _text(record.key), "headers": headers, "event": _event(topic, record.value)}


def message_type(schema: str) -> type[Message]:
    """The message class of a schema's full name."""
    for name in MODULES:
        import_module(f"tailor.api.events.v1.{name}_pb2")
    return message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(schema))


def decode(topic: str, value: bytes) -> Any:
    """The event that a record's value holds. Raises DecodeError for other bytes."""
    return message_type(load_topics()[topic].schema).FromString(value)


def _event(topic: Topic, value: bytes | None) -> Any:
    if value is None:
        return None
    if topic.raw_zone:
        return _text(value)
    message = message_type(topic.schema)()
    try:
        message.ParseFromString(value)
    except DecodeError:
        return {"undecodable": True, "value_bytes": len(value)}
    return to_dict(message)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")


def _records(poll: Any, maximum: int | None, idle_seconds: float | None) -> Iterator[Any]:
    count, last = 0, time.monotonic()
    while idle_seconds is None or time.monotonic() - last < idle_seconds:
        for record in poll():
            yield record
            count, last = count + 1, time.monotonic()
            if maximum is not None and count >= maximum:
                return
