"""The outbox: events are written in the same transaction as the change they report, and sent afterwards.

An event that the broker will never take is set aside with a reason, in a separate table, and holds up no other. Events of a topic that is
missing or forbidden wait, and those of other topics pass them.
"""

import importlib
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from google.protobuf.message import DecodeError, Message
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    DateTime,
    Engine,
    Identity,
    LargeBinary,
    MetaData,
    String,
    Table,
    delete,
    event,
    func,
    insert,
    select,
)
from sqlalchemy.dialects.postgresql import insert as insert_or_keep
from sqlalchemy.pool import ConnectionPoolEntry

from tailor.errors import InvalidArgument, NotFound, Reason, TailorError
from tailor.events.clients import BrokerLost
from tailor.events.faults import Faults
from tailor.events.producer import Producer
from tailor.logging import get_logger, place
from tailor.retry import Stopped, retry
from tailor.sql import create_tables, transaction
from tailor.telemetry import OUTBOX_SET_ASIDE, OUTBOX_WAITING

log = get_logger(__name__)

BATCH = 100
# A transaction of this process wakes the relay; polling finds events of a killed process or another replica.
IDLE_SECONDS = 1.0
MAX_RETRY_SECONDS = 3.0
# How long events of a missing or forbidden topic wait before they are tried again, and how often the waiting ones are counted.
BLOCKED_SECONDS = 8.0
COUNT_SECONDS = 10.0
HAS_EVENTS = "has_outbox_events"
PART = "outbox"
# Faults of one topic; anything else concerns the whole broker.
OF_A_TOPIC = (Reason.KAFKA_TOPIC_MISSING, Reason.KAFKA_RIGHT_MISSING)

# The shared library creates this table itself: no service's migrations know it.
SET_ASIDE = Table(
    "outbox_set_aside",
    MetaData(),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("event_id", String(64), nullable=False),
    Column("topic", String(128), nullable=False),
    Column("key", String(256), nullable=False),
    Column("message_type", String(256), nullable=False),
    Column("value", LargeBinary, nullable=False),
    Column("reason", String(64), nullable=False),
    Column("set_aside_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
)
EVENT_COLUMNS = ("event_id", "topic", "key", "message_type", "value")


@dataclass(frozen=True)
class UnsentEvent:
    """An event that was set aside. `size_bytes` is that of its value."""

    event_id: str
    topic: str
    reason: str
    size_bytes: int
    create_time: datetime


def prepare_outbox(engine: Engine) -> None:
    """Create the table of events that were set aside. Idempotent; replicas wait for each other."""
    create_tables(engine, SET_ASIDE.metadata)


def outbox_table(metadata: MetaData) -> Table:
    """The outbox's table, which the migrations of each service create."""
    return Table(
        "outbox",
        metadata,
        Column("position", BigInteger, Identity(), primary_key=True),
        Column("event_id", String(64), nullable=False, unique=True),
        Column("topic", String(128), nullable=False),
        Column("key", String(256), nullable=False),
        Column("message_type", String(256), nullable=False),
        Column("value", LargeBinary, nullable=False),
    )


class Outbox:
    """Adds events within a transaction and relays them in order. Several replicas may relay: each batch is locked by one of them.

    `waiting` is the number of events that had to be sent when they were last counted.
    """

    def __init__(
        self,
        engine: Engine,
        table: Table,
        producer: Producer,
        *,
        idle_seconds: float = IDLE_SECONDS,
        faults: Faults | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._idle_seconds = idle_seconds
        self._engine = engine
        self._table = table
        self._producer = producer
        self._faults = faults or Faults()
        self._now = now
        self._blocked: dict[str, float] = {}
        self._counted_at = 0.0
        self.waiting = 0
        self._wake = threading.Event()
        event.listen(engine, "checkin", self._wake_relay)

    def add(self, connection: Connection, topic: str, key: str, message: Message, event_id: str) -> None:
        """Publish an event once the transaction commits. Idempotent by `event_id` until the event is sent."""
        kind = f"{type(message).__module__}:{type(message).__qualname__}"
        row = {
            "event_id": event_id,
            "topic": topic,
            "key": key,
            "message_type": kind,
            "value": message.SerializeToString(deterministic=True),
        }
        connection.execute(insert_or_keep(self._table).values(row).on_conflict_do_nothing(index_elements=["event_id"]))
        connection.info[HAS_EVENTS] = True

    def run(self, stop: threading.Event) -> None:
        """Relay events until `stop` is set. Blocks; waits for a lost broker or database."""

        def report(error: TailorError, _: int) -> None:
            self._faults.report(PART, error)
            self._count()

        with suppress(Stopped):
            retry(lambda: prepare_outbox(self._engine), stop=stop, on_wait=report)
            while not stop.is_set():
                sent = retry(self.relay, stop=stop, initial_seconds=0.5, max_seconds=MAX_RETRY_SECONDS, on_wait=report)
                self._faults.clear(PART)
                self._count()
                if sent < BATCH:
                    self._wake.wait(self._idle_seconds)
                    self._wake.clear()

    def relay(self) -> int:
        """Send one batch and return its size. Events are removed only after the broker acknowledged them or will never take them."""
        columns = self._table.c
        self._blocked = {topic: until for topic, until in self._blocked.items() if until > self._now()}
        with transaction(self._engine) as connection:
            query = select(self._table).where(columns.topic.not_in(self._blocked)).order_by(columns.position)
            rows = connection.execute(query.limit(BATCH).with_for_update()).all()
            done = [row.position for row in rows if self._send(connection, row)]
            if done:
                connection.execute(delete(self._table).where(columns.position.in_(done)))
        return len(rows)

    def unsent(self, limit: int) -> Sequence[UnsentEvent]:
        """The events that were set aside, oldest first."""
        columns = SET_ASIDE.c
        size = func.length(columns.value)
        query = select(columns.event_id, columns.topic, columns.reason, size, columns.set_aside_time)
        with transaction(self._engine) as connection:
            return [UnsentEvent(*row) for row in connection.execute(query.order_by(columns.position).limit(limit))]

    def resend(self, event_id: str) -> None:
        """Put an event that was set aside into the outbox again. Raises NotFound (UNKNOWN_EVENT)."""
        is_event = SET_ASIDE.c.event_id == event_id
        names = [SET_ASIDE.c[name] for name in EVENT_COLUMNS]
        with transaction(self._engine) as connection:
            row = connection.execute(delete(SET_ASIDE).where(is_event).returning(*names)).first()
            if row is None:
                raise NotFound(Reason.UNKNOWN_EVENT, "No event with this id was set aside.")
            again = insert_or_keep(self._table).values(**row._mapping)
            connection.execute(again.on_conflict_do_nothing(index_elements=["event_id"]))
            connection.info[HAS_EVENTS] = True

    def _send(self, connection: Connection, row: Any) -> bool:
        """Send an event. Returns True if it is done with, False if it waits for its topic. Raises Unavailable without a broker."""
        if row.topic in self._blocked:
            return False
        try:
            self._producer.send(row.topic, row.key, _parse(row.message_type, row.value), row.event_id)
        except InvalidArgument as error:
            self._set_aside(connection, row, error)
        except BrokerLost as error:
            if error.reason not in OF_A_TOPIC:
                raise
            self._blocked[row.topic] = self._now() + BLOCKED_SECONDS
            self._faults.report(f"publishing {row.topic}", error)
            return False
        else:
            self._faults.clear(f"publishing {row.topic}")
        return True

    def _set_aside(self, connection: Connection, row: Any, error: InvalidArgument) -> None:
        values = {name: getattr(row, name) for name in ("position", *EVENT_COLUMNS)}
        connection.execute(insert(SET_ASIDE).values(**values, reason=str(error.reason)))
        log.error("event set aside", topic=row.topic, event_id=row.event_id, reason=error.reason, bytes=len(row.value))
        # Count at once.
        self._counted_at = 0.0

    def _count(self) -> None:
        """Report how many events wait or were set aside, not more often than every COUNT_SECONDS."""
        if self._now() - self._counted_at < COUNT_SECONDS and self._counted_at:
            return
        self._counted_at = self._now()
        with suppress(TailorError), transaction(self._engine) as connection:
            self.waiting = connection.scalar(select(func.count()).select_from(self._table)) or 0
            OUTBOX_WAITING.set(self.waiting)
            columns = SET_ASIDE.c
            groups = select(columns.topic, columns.reason, func.count()).group_by(columns.topic, columns.reason)
            unsent = [(topic, reason, int(count)) for topic, reason, count in connection.execute(groups)]
            OUTBOX_SET_ASIDE.set(sum(count for _, _, count in unsent))
            if unsent:
                listed = "; ".join(f"{count} of {topic}: {reason}" for topic, reason, count in sorted(unsent))
                message = f"Events could not be sent and were set aside ({listed}). `tailor event dead` lists them."
                self._faults.notice("unsent events", InvalidArgument(Reason.EVENTS_SET_ASIDE, message))
            else:
                self._faults.clear("unsent events")

    def _wake_relay(self, _dbapi_connection: object, record: ConnectionPoolEntry) -> None:
        # The transaction has ended; until then its events are invisible to the relay.
        if record.info.pop(HAS_EVENTS, False):
            self._wake.set()


def _parse(kind: str, value: bytes) -> Message:
    """The message of a row. Raises InvalidArgument (UNDECODABLE) if this release does not know its type."""
    module, _, name = kind.partition(":")
    try:
        message: Message = getattr(importlib.import_module(module), name)()
        message.ParseFromString(value)
    except (ImportError, AttributeError, DecodeError) as error:
        log.error("outbox row not decodable", message_type=kind, error=type(error).__name__, at=place(error))
        raise InvalidArgument(Reason.UNDECODABLE, f"This release does not know the message type {kind}.") from None
    return message
