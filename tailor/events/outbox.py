"""The outbox: an event written in the same transaction as the change it states, and sent afterwards."""

import importlib
import threading

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
from tailor.sql import transaction

log = get_logger(__name__)

BATCH = 100
# For what a killed process, or another replica, left: what this process states wakes the relay.
IDLE_SECONDS = 1.0
STATES = "states_events"


def outbox_table(metadata: MetaData) -> Table:
    """The table; a service's first migration makes it by `outbox_table(MetaData()).create(op.get_bind())`."""
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
    """Adds events within a transaction and relays them in order. Several replicas may relay: a batch is locked by one."""

    def __init__(self, engine: Engine, table: Table, producer: Producer, *, idle_seconds: float = IDLE_SECONDS) -> None:
        self._idle_seconds = idle_seconds
        self._engine = engine
        self._table = table
        self._producer = producer
        self._wake = threading.Event()
        event.listen(engine, "checkin", self._given_back)

    def add(self, connection: Connection, topic: str, key: str, message: Message, event_id: str) -> None:
        """State a fact when the transaction commits; the same id again changes nothing while it waits."""
        kind = f"{type(message).__module__}:{type(message).__qualname__}"
        row = {
            "event_id": event_id,
            "topic": topic,
            "key": key,
            "message_type": kind,
            "value": message.SerializeToString(deterministic=True),
        }
        connection.execute(insert(self._table).values(row).on_conflict_do_nothing(index_elements=["event_id"]))
        connection.info[STATES] = True

    def run(self, stop: threading.Event) -> None:
        """Relay until told to stop. A lost broker or database only delays it."""
        delay = self._idle_seconds
        while not stop.is_set():
            try:
                sent = self.relay()
                delay = self._idle_seconds
            except TailorError as error:
                if not error.retryable:
                    raise
                log.warning("outbox waits", reason=error.reason)
                sent, delay = 0, min(delay * 2, 10.0)
            if sent < BATCH:
                self._wake.wait(delay)
                self._wake.clear()

    def relay(self) -> int:
        """Send one batch; the number of events sent. An event is removed only after the broker has it."""
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

    def _given_back(self, _dbapi_connection: object, record: ConnectionPoolEntry) -> None:
        # The transaction has ended: before that, nobody else sees what it states.
        if record.info.pop(STATES, False):
            self._wake.set()


def _parse(kind: str, value: bytes) -> Message:
    module, _, name = kind.partition(":")
    message: Message = getattr(importlib.import_module(module), name)()
    message.ParseFromString(value)
    return message
