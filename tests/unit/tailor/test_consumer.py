"""The three kinds of failure of an event's handler, without a broker."""

import threading

import pytest

from tailor.api.events.v1 import drafts_pb2, models_pb2
from tailor.errors import InvalidArgument, Unavailable
from tailor.events.consumer import DEAD_LETTERS, MAX_ATTEMPTS, MAX_DEAD_LETTERS_IN_A_ROW, Consumer, Handler, _Rebalances
from tailor.events.envelope import Event, decode
from tailor.events.memory import MemoryProducer
from tailor.settings import KafkaSettings

TOPIC = "dataset.built.v1"
SECRET = b"\xff\xffSarah Jenkins"


def _consumer(handler: Handler, producer: MemoryProducer) -> Consumer:
    return Consumer(
        KafkaSettings(), service="training", topics={TOPIC: handler}, producer=producer, sleep=lambda _: None
    )


def _event(offset: int = 7) -> Event:
    return Event(TOPIC, "engagement-reports", SECRET, {}, 2, offset, 1000)


def test_a_retryable_failure_is_retried_until_it_passes() -> None:
    attempts = []

    def handler(event: Event) -> None:
        attempts.append(event)
        if len(attempts) < 4:
            raise Unavailable("DATABASE_UNAVAILABLE", "down")

    producer = MemoryProducer()
    assert _consumer(handler, producer).handle(_event(), threading.Event())
    assert len(attempts) == 4
    assert producer.sent == []


def test_a_lasting_failure_crashes_instead_of_losing_the_event() -> None:
    attempts = []

    def handler(event: Event) -> None:
        attempts.append(event)
        raise Unavailable("DATABASE_UNAVAILABLE", "down")

    with pytest.raises(Unavailable):
        _consumer(handler, MemoryProducer()).handle(_event(), threading.Event())
    assert len(attempts) == MAX_ATTEMPTS


def test_an_undecodable_event_is_dead_lettered_by_reference_alone() -> None:
    producer = MemoryProducer()
    assert _consumer(lambda event: _fail(decode(event, models_pb2.DatasetBuilt)), producer).handle(
        _event(), threading.Event()
    )
    topic, _, letter, _ = producer.sent[0]
    assert topic == DEAD_LETTERS
    assert isinstance(letter, drafts_pb2.EventDeadLettered)
    assert (letter.topic, letter.partition, letter.offset, letter.reason) == (TOPIC, 2, 7, "UNDECODABLE")
    assert b"Sarah" not in letter.SerializeToString()


def _fail(message: object) -> None:
    raise AssertionError(f"decoded {message!r}")


def test_a_redelivered_poison_event_has_the_same_dead_letter() -> None:
    producer = MemoryProducer()
    consumer = _consumer(lambda event: _fail(decode(event, models_pb2.DatasetBuilt)), producer)
    consumer.handle(_event(), threading.Event())
    consumer.handle(_event(), threading.Event())
    assert len(producer.messages(DEAD_LETTERS)) == 1


def test_too_many_dead_letters_in_a_row_stop_the_consumer() -> None:
    def handler(event: Event) -> None:
        raise InvalidArgument("WRONG", "wrong")

    consumer = _consumer(handler, MemoryProducer())
    for offset in range(MAX_DEAD_LETTERS_IN_A_ROW):
        consumer.handle(_event(offset), threading.Event())
    with pytest.raises(RuntimeError, match="in a row"):
        consumer.handle(_event(99), threading.Event())


def test_anything_else_crashes() -> None:
    def handler(event: Event) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        _consumer(handler, MemoryProducer()).handle(_event(), threading.Event())


def test_a_stop_between_two_attempts_leaves_the_event_uncommitted() -> None:
    stop = threading.Event()

    def handler(event: Event) -> None:
        stop.set()
        raise Unavailable("DATABASE_UNAVAILABLE", "down")

    assert not _consumer(handler, MemoryProducer()).handle(_event(), stop)


def test_a_joining_that_goes_on_no_more_is_overdue_until_partitions_are_given() -> None:
    rebalances = _Rebalances(patience_seconds=0.0)
    assert rebalances.overdue
    rebalances.on_partitions_assigned([])
    assert not rebalances.overdue
    rebalances.on_partitions_revoked([])
    assert rebalances.overdue
    assert not _Rebalances().overdue
