"""Dead letters over PostgreSQL: recorded by the consumer, listed, replayed and skipped by an operator's call."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine

from tailor.api.events.v1 import models_pb2, operations_pb2
from tailor.errors import InvalidArgument, NotFound, Reason, Unavailable
from tailor.events.consumer import DEAD_LETTERS, Consumer
from tailor.events.dead_letters import EventPlace, LetterState, SqlDeadLetters
from tailor.events.envelope import Event
from tailor.events.faults import Faults
from tailor.events.memory import MemoryProducer
from tailor.events.operations import EventParts, EventServicer
from tailor.rpc.auth import Caller, set_caller
from tailor.settings import KafkaSettings
from tailor.sql import connect

pytestmark = pytest.mark.integration

TOPIC = "dataset.built.v1"
PLACE = EventPlace(TOPIC, 0, 7)
EVENT = Event(TOPIC, "reports", models_pb2.DatasetBuilt(digest="ab").SerializeToString(), {}, 0, 7)
CONTEXT: Any = None


class Service:
    """One service: its consumer, and the calls that an operator makes."""

    def __init__(self, engine: Engine) -> None:
        self.handled: list[Event] = []
        self.refusal: Exception | None = None
        self.producer = MemoryProducer()
        self.letters = SqlDeadLetters(engine)
        self.letters.prepare()
        handlers = {TOPIC: self.handle}
        self.parts = EventParts(Faults(), letters=self.letters, read=lambda place: EVENT, handlers=handlers)
        self.calls = EventServicer(self.parts)
        self.consumer = Consumer(
            KafkaSettings(),
            service="training",
            topics=handlers,
            producer=self.producer,
            sleep=self.sleep,
            letters=self.letters,
        )
        self.sleep_once: Callable[[], object] = lambda: None
        set_caller(Caller("key", "olga", "ROLE_OPERATOR", key_id="key_1"))

    def handle(self, event: Event) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.handled.append(event)

    def sleep(self, seconds: float) -> None:
        del seconds
        self.sleep_once()

    def consume(self) -> bool:
        return self.consumer.handle(EVENT, threading.Event())

    def list(self, *, include_closed: bool = False) -> list[operations_pb2.DeadLetter]:
        request = operations_pb2.ListDeadLettersRequest(include_closed=include_closed)
        return list(self.calls.ListDeadLetters(request, CONTEXT).dead_letters)

    def replay(self, **fields: Any) -> operations_pb2.DeadLetter:
        named: dict[str, Any] = {"topic": TOPIC, "offset": 7} | fields
        request = operations_pb2.ReplayDeadLetterRequest(**named)
        return self.calls.ReplayDeadLetter(request, CONTEXT).dead_letter

    def skip(self, reason: str = "poison", **fields: Any) -> operations_pb2.DeadLetter:
        named: dict[str, Any] = {"topic": TOPIC, "offset": 7, "reason": reason} | fields
        request = operations_pb2.SkipEventRequest(**named)
        return self.calls.SkipEvent(request, CONTEXT).dead_letter


@pytest.fixture
def service(database_url: str) -> Iterator[Service]:
    engine = connect(database_url)
    yield Service(engine)
    engine.dispose()


def test_an_invalid_event_is_listed_with_its_reason_and_replayed_after_its_cause_is_mended(service: Service) -> None:
    service.refusal = InvalidArgument(Reason.INCOMPLETE_EVENT, "The event lacks kind. Update the producer.")
    assert service.consume()
    assert len(service.producer.messages(DEAD_LETTERS)) == 1
    (letter,) = service.list()
    assert (letter.topic, letter.partition, letter.offset, letter.reason) == (TOPIC, 0, 7, "INCOMPLETE_EVENT")
    assert letter.state == operations_pb2.DEAD_LETTER_STATE_DEAD and "lacks kind" in letter.message
    with pytest.raises(InvalidArgument):
        service.replay()
    assert len(service.list()) == 1
    service.refusal = None
    replayed = service.replay()
    assert (replayed.state, replayed.key_id) == (operations_pb2.DEAD_LETTER_STATE_REPLAYED, "key_1")
    assert service.handled == [EVENT]
    assert service.list() == [] and len(service.list(include_closed=True)) == 1


def test_a_skip_moves_past_an_event_that_is_retried_and_keeps_the_reason(service: Service) -> None:
    service.refusal = Unavailable(Reason.DATABASE_UNAVAILABLE, "down")
    service.sleep_once = lambda: service.skip("the run it names never existed")
    assert service.consume()
    assert service.handled == []
    (letter,) = service.list(include_closed=True)
    assert (letter.note, letter.key_id) == ("the run it names never existed", "key_1")
    assert letter.state == operations_pb2.DEAD_LETTER_STATE_SKIPPED


def test_a_skip_is_known_after_a_crash_and_by_every_replica(service: Service, database_url: str) -> None:
    service.skip()
    other = SqlDeadLetters(connect(database_url))
    assert other.is_skipped(PLACE) and not other.is_skipped(EventPlace(TOPIC, 0, 8))
    service.refusal = ZeroDivisionError()
    assert service.consume()


def test_a_repeated_skip_keeps_one_row_with_the_last_reason(service: Service) -> None:
    service.skip("first")
    assert service.skip("second").note == "second"
    assert len(service.list(include_closed=True)) == 1
    assert service.letters.find(PLACE).state == LetterState.SKIPPED


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"topic": "document.submitted.v1"}, NotFound),
        ({"offset": 99}, NotFound),
        ({"offset": -1}, InvalidArgument),
        ({"event_id": "evt_1"}, NotFound),
    ],
)
def test_refuses_to_replay_what_it_does_not_know(
    service: Service, fields: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        service.replay(**fields)


@pytest.mark.parametrize("reason", ["", "  ", "x" * 501, "NUL\0"])
def test_a_skip_needs_a_reason(service: Service, reason: str) -> None:
    with pytest.raises(InvalidArgument):
        service.skip(reason)
    assert service.list(include_closed=True) == []


def test_lists_dead_letters_in_pages(service: Service) -> None:
    for offset in range(5):
        service.letters.add(EventPlace(TOPIC, 0, offset), InvalidArgument(Reason.UNDECODABLE, "no"))
    seen, token = [], ""
    while True:
        request = operations_pb2.ListDeadLettersRequest(page_size=2, page_token=token)
        answer = service.calls.ListDeadLetters(request, CONTEXT)
        seen += [letter.offset for letter in answer.dead_letters]
        token = answer.next_page_token
        if not token:
            break
    assert sorted(seen) == [0, 1, 2, 3, 4]
    with pytest.raises(InvalidArgument):
        service.calls.ListDeadLetters(operations_pb2.ListDeadLettersRequest(page_token="x"), CONTEXT)
