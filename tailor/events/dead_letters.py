"""The dead letters of one service, in its database: where an event is, why it was set aside, and what an operator did about it."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from sqlalchemy import BigInteger, Column, DateTime, Engine, Integer, MetaData, String, Table, Text, func

from tailor.errors import NotFound, Reason, TailorError
from tailor.events.envelope import Event
from tailor.rows import Rows
from tailor.sql import create_tables

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
    create_time: datetime


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
        self._letters = Rows(engine, LETTERS, Letter)
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
        row: dict[str, Any] = {"reason": str(error.reason), "message": error.message, "state": state}
        self._letters.upsert(keep=("note", "key_id"), note="", key_id="", **row, **vars(place))

    def waiting(self, limit: int) -> Sequence[Letter]:
        """The events that wait for one of another topic, oldest first."""
        return self._letters.all(state=LetterState.WAITING, order=(LETTERS.c.create_time, *PLACE), limit=limit)

    def is_skipped(self, place: EventPlace) -> bool:
        with self._lock:
            if self._read_at is None or self._now() - self._read_at >= REFRESH_SECONDS:
                skipped = self._letters.all(state=LetterState.SKIPPED)
                self._skipped, self._read_at = frozenset(letter.place for letter in skipped), self._now()
            return place in self._skipped

    def find(self, place: EventPlace) -> Letter:
        """One dead letter. Raises NotFound (UNKNOWN_EVENT)."""
        letter = self._letters.find(**vars(place))
        if letter is None:
            raise NotFound(
                Reason.UNKNOWN_EVENT,
                f"No dead letter of {place.topic}, partition {place.partition}, offset {place.offset}. "
                "`tailor event dead` lists them.",
            )
        return letter

    def list(self, limit: int, start: int, *, include_closed: bool) -> Sequence[Letter]:
        """Dead letters, and events that wait, from position `start` on, newest first."""
        states = [*LetterState] if include_closed else [LetterState.DEAD, LetterState.WAITING]
        query = self._letters.select(state=states).order_by(LETTERS.c.create_time.desc(), *PLACE)
        return self._letters.fetch(query.limit(limit).offset(start))

    def mark_replayed(self, place: EventPlace, key_id: str) -> Letter:
        """Record that the event was handled after all."""
        self._letters.update({"state": LetterState.REPLAYED, "key_id": key_id}, **vars(place))
        return self.find(place)

    def skip(self, place: EventPlace, note: str, key_id: str) -> Letter:
        """Record that an operator moves past an event, whether or not it is a dead letter yet. Idempotent."""
        row: dict[str, Any] = {
            "reason": SKIPPED_BY_OPERATOR,
            "message": "An operator moved past the event.",
            "key_id": key_id,
        }
        state = LetterState.SKIPPED
        self._letters.upsert(keep=("reason", "message"), state=state, note=note, **row, **vars(place))
        with self._lock:
            self._read_at = None
        return self.find(place)


def place_of(event: Event) -> EventPlace:
    return EventPlace(event.topic, event.partition, event.offset)
