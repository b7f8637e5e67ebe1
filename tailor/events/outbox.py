"""The outbox: events are written in the same transaction as the change they report, and sent afterwards."""

import importlib
import threading
from contextlib import suppress

from google.protobuf.message import Message
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Identity,
    LargeBinary,
    MetaData,
    String,
    Table,
    delete,
    event,
    select,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.pool import ConnectionPoolEntry

from tailor.errors import TailorError
from tailor.events.producer import Producer
from tailor.logging import get_logger
from tailor.retry import Stopped, retry
from tailor.sql import transaction

log = get_logger(__name__)

BATCH = 100
# A transaction of this process wakes the relay; polling finds events of a killed process or another replica.
IDLE_SECONDS = 1.0
MAX_RETRY_SECONDS = 10.0
HAS_EVENTS = "has_outbox_events"


def outbox_table(metadata: MetaData) -> Table:
    """The outbox's table. A service's first migration creates it: `outbox_table(MetaData()).create(op.get_bind())`."""
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
    """Adds events within a transaction and relays them in order. Several replicas may relay: each batch is locked by one of them."""

    def __init__(self, engine: Engine, table: Table, producer: Producer, *, idle_seconds: float = IDLE_SECONDS) -> None:
        self._idle_seconds = idle_seconds
        self._engine = engine
        self._table = table
        self._producer = producer
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
        connection.execute(insert(self._table).values(row).on_conflict_do_nothing(index_elements=["event_id"]))
        connection.info[HAS_EVENTS] = True

    def run(self, stop: threading.Event) -> None:
        """Relay events until `stop` is set. Blocks; waits for a lost broker or database."""

        def log_wait(error: TailorError, _: int) -> None:
            log.warning("outbox waits", reason=error.reason)

        with suppress(Stopped):
            while not stop.is_set():
                sent = retry(
                    self.relay, stop=stop, initial_seconds=1.0, max_seconds=MAX_RETRY_SECONDS, on_wait=log_wait
                )
                if sent < BATCH:
                    self._wake.wait(self._idle_seconds)
                    self._wake.clear()

    def relay(self) -> int:
        """Send one batch and return its size. Events are removed only after the broker acknowledged them."""
        with transaction(self._engine) as connection:
            query = select(self._table).order_by(self._table.c.position).limit(BATCH).with_for_update()
            rows = connection.execute(query).all()
            for row in rows:
                self._producer.send(row.topic, row.key, _parse(row.message_type, row.value), row.event_id)
            if rows:
                connection.execute(
                    delete(self._table).where(self._table.c.position.in_([row.position for row in rows]))
                )
        return len(rows)

    def _wake_relay(self, _dbapi_connection: object, record: ConnectionPoolEntry) -> None:
        # The transaction has ended; until then its events are invisible to the relay.
        if record.info.pop(HAS_EVENTS, False):
            self._wake.set()


def _parse(kind: str, value: bytes) -> Message:
    module, _, name = kind.partition(":")
    message: Message = getattr(importlib.import_module(module), name)()
    message.ParseFromString(value)
    return message
