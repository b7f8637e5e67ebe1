"""`tailor event`: the decoded events of any topic as JSON lines, and what could not be handled.

`tailor event read TOPIC` reads Kafka. `dead`, `replay` and `skip` are calls of the consuming service and need no Kafka credentials.
"""

import time
from collections.abc import Iterator
from enum import Enum
from importlib import import_module
from typing import Annotated, Any

import typer
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from tailor.api.events.v1 import operations_pb2
from tailor.cli.calls import pages
from tailor.cli.connections import SERVICES
from tailor.cli.messages import to_dict
from tailor.cli.options import Reason as ReasonText
from tailor.cli.session import CommandSession
from tailor.cli.tables import emit_list
from tailor.columns import columns
from tailor.errors import InvalidArgument, Reason, TailorError
from tailor.events.topics import Topic, load_topics

# Handlers of one event may take minutes.
REPLAY_SECONDS = 300.0
MODULES = ("documents", "drafts", "models", "policies")

ServiceName = Annotated[str, typer.Argument(help="The service that could not handle or send it, such as `training`.")]
EventName = Annotated[
    str, typer.Argument(metavar="EVENT", help="TOPIC/PARTITION/OFFSET, as `tailor event dead` shows it.")
]
COLUMNS = columns(
    None,
    "service=0",
    ("event", lambda row: row[1].event_id or f"{row[1].topic}/{row[1].partition}/{row[1].offset}"),
    "state=1.state, reason=1.reason, what to do=1.message, note=1.note",
)


class Zone(Enum):
    """How to show records of the raw zone, which hold personal data: only their sizes, or their keys and values too."""

    SIZES = "sizes"
    VALUES = "values"


def read(
    session: CommandSession,
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

    entry = find_topic(topic)
    zone = Zone.VALUES if raw else Zone.SIZES
    start = Start.BEGINNING if from_beginning else Start.END
    with TopicReader(session.connections.kafka_reader(), [topic], start) as reader:
        for record in _records(reader.poll, maximum, idle_seconds):
            session.output.emit_each(to_line(entry, record, zone))


def dead(
    session: CommandSession,
    service: Annotated[str, typer.Option(help="Only this service; by default all that answer.")] = "",
    *,
    everything: Annotated[bool, typer.Option("--all", help="Also those that were replayed or skipped.")] = False,
) -> None:
    """List the events that services could not handle, or could not send."""
    rows, silent = [], {}
    for name in [service] if service else SERVICES:
        request = operations_pb2.ListDeadLettersRequest(include_closed=everything)
        try:
            stub = session.connections.events(name)
            rows += [(name, letter) for letter in pages(stub.ListDeadLetters, request)]
        except TailorError as error:
            if service:
                raise
            silent[name] = str(error.reason)
    document = {"dead_letters": [{"service": name} | to_dict(letter) for name, letter in rows], "no_answer": silent}

    remarks = [f"{name} did not answer ({reason})." for name, reason in silent.items()]
    emit_list(session, rows, COLUMNS, document=document, empty="No dead letters.", remarks=remarks)


def replay(session: CommandSession, service: ServiceName, event: EventName) -> None:
    """Have a service handle a dead letter's event again, after its cause is mended; or send an unsent event (EVENT is its id) again."""
    request = operations_pb2.ReplayDeadLetterRequest(**_place(event) if "/" in event else {"event_id": event})
    answer = session.connections.events(service).ReplayDeadLetter(request, timeout=REPLAY_SECONDS)
    done = "The event was handled." if "/" in event else "The event is in the outbox again."
    session.output.emit(answer, done)


def skip(session: CommandSession, service: ServiceName, event: EventName, reason: ReasonText) -> None:
    """Have a service move past one event for good, also if it fails on it again and again."""
    request = operations_pb2.SkipEventRequest(**_place(event), reason=reason)
    answer = session.connections.events(service).SkipEvent(request, timeout=REPLAY_SECONDS)
    session.output.emit(answer, f"{service} moves past {event}.")


def _place(event: str) -> dict[str, Any]:
    """Topic, partition and offset of `TOPIC/PARTITION/OFFSET`. Raises InvalidArgument."""
    topic, partition, offset = (*event.split("/"), "", "")[:3]
    if event.count("/") != 2 or not (partition.isdecimal() and offset.isdecimal()):
        raise InvalidArgument(Reason.INVALID_ARGUMENT, f"{event} is not an event: write TOPIC/PARTITION/OFFSET.")
    return {"topic": topic, "partition": int(partition), "offset": int(offset)}


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
