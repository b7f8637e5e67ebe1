"""An event that waits for one of another topic stops no other event, and is handled when its time has come."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from tailor.api.events.v1 import drafts_pb2
from tailor.errors import FailedPrecondition, NotYet, Reason, TailorError
from tailor.events.consumer import DEAD_LETTERS, Consumer
from tailor.events.dead_letters import EventPlace, LetterState, SqlDeadLetters
from tailor.events.envelope import Event
from tailor.events.faults import Faults
from tailor.events.memory import MemoryProducer
from tailor.events.parked import ParkedEvents
from tailor.settings import KafkaSettings
from tailor.sql import connect

pytestmark = pytest.mark.integration

TOPIC = "adapter.evaluated.v1"
PLACE = EventPlace(TOPIC, 2, 7)
EVENT = Event(TOPIC, "memos", b"...", {}, 2, 7, 1_000)
NOT_YET = NotYet(Reason.NOT_CATALOGUED_YET, "The adapter is not catalogued yet.")


class World:
    """A consumer over a database, whose handler raises a chosen error."""

    def __init__(self, engine: Engine) -> None:
        self.error: Exception | None = NOT_YET
        self.handled: list[int] = []
        self.faults, self.producer = Faults(), MemoryProducer("registry")
        self.letters = SqlDeadLetters(engine)
        self.letters.prepare()
        self.later = timedelta()
        self.consumer = Consumer(
            KafkaSettings(),
            service="registry",
            topics={TOPIC: self.handle},
            producer=self.producer,
            sleep=lambda _: None,
            faults=self.faults,
            letters=self.letters,
        )
        self.parked = self.make_parked(lambda _: EVENT)

    def make_parked(self, read: Callable[[EventPlace], Event]) -> ParkedEvents:
        return ParkedEvents(
            self.letters,
            read,
            {TOPIC: self.handle},
            dead_letter=self.consumer._dead_letter,
            faults=self.faults,
            now=lambda: datetime.now(UTC) + self.later,
        )

    def handle(self, event: Event) -> None:
        if event.offset == EVENT.offset and self.error is not None:
            raise self.error
        self.handled.append(event.offset)

    @property
    def states(self) -> list[LetterState]:
        return [letter.state for letter in self.letters.list(10, 0, include_closed=True)]


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = connect(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def world(engine: Engine) -> World:
    return World(engine)


def test_an_event_that_waits_is_parked_and_the_next_one_is_handled(world: World) -> None:
    assert world.consumer.handle(EVENT, threading.Event())
    assert world.consumer.handle(Event(TOPIC, "memos", b"...", {}, 2, 8, 1_000), threading.Event())
    assert world.handled == [8] and world.states == [LetterState.WAITING]
    (fault,) = world.faults.all()
    assert (fault.part, fault.reason, fault.waits) == (f"{TOPIC} 2/7", "NOT_CATALOGUED_YET", False)
    world.parked.retry_all()
    assert world.states == [LetterState.WAITING]
    world.error = None
    world.parked.retry_all()
    assert world.handled == [8, 7] and world.states == [LetterState.REPLAYED]
    assert not world.faults.all() and not world.producer.messages(DEAD_LETTERS)


@pytest.mark.parametrize("late", [NOT_YET, FailedPrecondition(Reason.UNKNOWN_SPECIALIST, "No."), ValueError("defect")])
def test_an_event_that_waits_in_vain_is_a_dead_letter(world: World, late: Exception) -> None:
    world.consumer.handle(EVENT, threading.Event())
    world.error = late
    world.later = timedelta(hours=1)
    world.parked.retry_all()
    assert world.states == [LetterState.DEAD] and not world.faults.all()
    (letter,) = world.producer.messages(DEAD_LETTERS)
    assert isinstance(letter, drafts_pb2.EventDeadLettered)
    assert (letter.topic, letter.partition, letter.offset) == (TOPIC, 2, 7)
    world.parked.retry_all()
    assert len(world.producer.messages(DEAD_LETTERS)) == 1


def test_an_event_that_expired_meanwhile_is_a_dead_letter(world: World) -> None:
    def read(place: EventPlace) -> Event:
        raise FailedPrecondition(Reason.EVENT_EXPIRED, "Its retention is over.")

    world.consumer.handle(EVENT, threading.Event())
    world.make_parked(read).retry_all()
    assert world.states == [LetterState.DEAD]


def test_parked_events_are_shown_again_after_a_restart(world: World, engine: Engine) -> None:
    world.consumer.handle(EVENT, threading.Event())
    restarted = World(engine)
    stop = threading.Event()
    stop.set()
    restarted.parked.run(stop)
    assert [fault.part for fault in restarted.faults.all()] == [f"{TOPIC} 2/7"]


def test_a_service_without_a_database_does_not_lose_the_event() -> None:
    def handle(event: Event) -> None:
        raise NOT_YET

    consumer = Consumer(
        KafkaSettings(), service="x", topics={TOPIC: handle}, producer=MemoryProducer("x"), sleep=lambda _: None
    )
    with pytest.raises(TailorError):
        consumer.handle(EVENT, threading.Event())
