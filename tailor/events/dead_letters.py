"""The dead letters of one service, in its database: where an event is, why it was set aside, and what an operator did about it."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    func,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from tailor.errors import NotFound, Reason, TailorError
from tailor.events.envelope import Event
from tailor.sql import create_tables, transaction

# How long a skip that another replica recorded may go unnoticed.
REFRESH_SECONDS = 5.0
SKIPPED_BY_OPERATOR = "SKIPPED"


class LetterState(StrEnum):
    """What became of a dead letter."""

    DEAD = "dead"
    REPLAYED = "replayed"
    SKIPPED = "skipped"
    # It waits for an event of another topic.
    WAITING = "waiting"


@dataclass(frozen=True)
class EventPlace:
    """Where an event is."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True)
class Letter:
    """One dead letter. `note` is an operator's reason for a skip, `key_id` the operator's key."""

    place: EventPlace
    reason: str
    message: str
    state: LetterState
    note: str
    key_id: str
    time: datetime


class DeadLetters(Protocol):
    """The dead letters of a service, as its consumer uses them."""

    def add(self, place: EventPlace, error: TailorError) -> None:
        """Record an event that could not be handled. Idempotent. Raises Unavailable without the database."""
        ...

    def park(self, place: EventPlace, error: TailorError) -> None:
        """Record an event that waits for one of another topic. Idempotent. Raises Unavailable without the database."""
        ...

    def is_skipped(self, place: EventPlace) -> bool:
        """True if an operator moved past the event."""
        ...


class NoDeadLetters(DeadLetters):
    """For a service without a database: nothing is recorded, and nothing can be skipped."""

    def add(self, place: EventPlace, error: TailorError) -> None:
        del place, error

    def park(self, place: EventPlace, error: TailorError) -> None:
        """Raises the error: the event cannot be set aside."""
        del place
        raise error

    def is_skipped(self, place: EventPlace) -> bool:
        del place
        return False


LETTERS = Table(
    "event_dead_letters",
    MetaData(),
    Column("topic", String(128), primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("offset", BigInteger, primary_key=True),
    Column("reason", String(64), nullable=False),
    Column("message", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("note", Text, nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
)
PLACE = (LETTERS.c.topic, LETTERS.c.partition, LETTERS.c.offset)


class SqlDeadLetters(DeadLetters):
    """Dead letters in the service's database. Thread-safe, and safe for several replicas."""

    def __init__(self, engine: Engine, now: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._now = now
        self._lock = threading.Lock()
        self._skipped: frozenset[EventPlace] = frozenset()
        self._read_at: float | None = None

    def prepare(self) -> None:
        """Create the table. Idempotent."""
        create_tables(self._engine, LETTERS.metadata)

    def add(self, place: EventPlace, error: TailorError) -> None:
        self._set(place, error, LetterState.DEAD)

    def park(self, place: EventPlace, error: TailorError) -> None:
        self._set(place, error, LetterState.WAITING)

    def _set(self, place: EventPlace, error: TailorError, state: LetterState) -> None:
        row = _row(place) | {"reason": str(error.reason), "message": error.message}
        statement = insert(LETTERS).values(**row, state=state, note="", key_id="")
        again = {"reason": row["reason"], "message": row["message"], "state": state}
        with transaction(self._engine) as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=PLACE, set_=again))

    def waiting(self, limit: int) -> Sequence[Letter]:
        """The events that wait for one of another topic, oldest first."""
        query = select(LETTERS).where(LETTERS.c.state == LetterState.WAITING).order_by(LETTERS.c.create_time, *PLACE)
        with transaction(self._engine) as connection:
            return [_letter(row) for row in connection.execute(query.limit(limit))]

    def is_skipped(self, place: EventPlace) -> bool:
        with self._lock:
            if self._read_at is None or self._now() - self._read_at >= REFRESH_SECONDS:
                self._skipped, self._read_at = self._read_skipped(), self._now()
            return place in self._skipped

    def find(self, place: EventPlace) -> Letter:
        """One dead letter. Raises NotFound (UNKNOWN_EVENT)."""
        query = select(LETTERS).where(tuple_(*PLACE) == (place.topic, place.partition, place.offset))
        with transaction(self._engine) as connection:
            row = connection.execute(query).first()
        if row is None:
            raise NotFound(
                Reason.UNKNOWN_EVENT,
                f"No dead letter of {place.topic}, partition {place.partition}, offset {place.offset}. "
                "`tailor event dead` lists them.",
            )
        return _letter(row)

    def list(self, limit: int, start: int, *, include_closed: bool) -> Sequence[Letter]:
        """Dead letters, and events that wait, from position `start` on, newest first."""
        query = select(LETTERS).order_by(LETTERS.c.create_time.desc(), *PLACE)
        if not include_closed:
            query = query.where(LETTERS.c.state.in_((LetterState.DEAD, LetterState.WAITING)))
        with transaction(self._engine) as connection:
            return [_letter(row) for row in connection.execute(query.limit(limit).offset(start))]

    def mark_replayed(self, place: EventPlace, key_id: str) -> Letter:
        """Record that the event was handled after all."""
        change = {"state": LetterState.REPLAYED, "key_id": key_id}
        is_place = tuple_(*PLACE) == (place.topic, place.partition, place.offset)
        with transaction(self._engine) as connection:
            connection.execute(update(LETTERS).where(is_place).values(change))
        return self.find(place)

    def skip(self, place: EventPlace, note: str, key_id: str) -> Letter:
        """Record that an operator moves past an event, whether or not it is a dead letter yet. Idempotent."""
        change = {"state": LetterState.SKIPPED, "note": note, "key_id": key_id}
        row = _row(place) | {"reason": SKIPPED_BY_OPERATOR, "message": "An operator moved past the event."} | change
        statement = insert(LETTERS).values(row)
        with transaction(self._engine) as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=PLACE, set_=change))
        with self._lock:
            self._read_at = None
        return self.find(place)

    def _read_skipped(self) -> frozenset[EventPlace]:
        query = select(*PLACE).where(LETTERS.c.state == LetterState.SKIPPED)
        with transaction(self._engine) as connection:
            return frozenset(EventPlace(*row) for row in connection.execute(query))


def place_of(event: Event) -> EventPlace:
    return EventPlace(event.topic, event.partition, event.offset)


def _row(place: EventPlace) -> dict[str, Any]:
    return {"topic": place.topic, "partition": place.partition, "offset": place.offset}


def _letter(row: Any) -> Letter:
    return Letter(
        place=EventPlace(row.topic, row.partition, row.offset),
        reason=row.reason,
        message=row.message,
        state=LetterState(row.state),
        note=row.note,
        key_id=row.key_id,
        time=row.create_time,
    )
