"""Consuming events, without a broker: the three kinds of failure, and rebalances."""

import itertools
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.errors import (
    CommitFailedError,
    FencedInstanceIdError,
    GroupAuthorizationFailedError,
    KafkaError,
    KafkaTimeoutError,
)
from kafka.structs import MemberState

from tailor.api.events.v1 import documents_pb2, drafts_pb2, models_pb2
from tailor.errors import InvalidArgument, Reason, Unavailable
from tailor.events.clients import BrokerLost
from tailor.events.consumer import (
    DEAD_LETTERS,
    MAX_ATTEMPTS,
    MAX_DEAD_LETTERS_IN_A_ROW,
    Consumer,
    Handler,
    HandlerFailed,
    Rebalances,
)
from tailor.events.envelope import Event, decode
from tailor.events.expired import Gap, reject_gap
from tailor.events.faults import Faults
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
    attempts: list[Event] = []

    def handler(event: Event) -> None:
        attempts.append(event)
        if len(attempts) < 4:
            raise Unavailable(Reason.DATABASE_UNAVAILABLE, "down")

    producer = MemoryProducer()
    assert _consumer(handler, producer).handle(_event(), threading.Event())
    assert len(attempts) == 4
    assert producer.sent == []


def test_a_lasting_failure_crashes_the_process_instead_of_losing_the_event() -> None:
    attempts: list[Event] = []

    def handler(event: Event) -> None:
        attempts.append(event)
        raise Unavailable(Reason.DATABASE_UNAVAILABLE, "down")

    with pytest.raises(Unavailable):
        _consumer(handler, MemoryProducer()).handle(_event(), threading.Event())
    assert len(attempts) == MAX_ATTEMPTS


def test_dead_letters_an_undecodable_event_by_reference_only() -> None:
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
        raise InvalidArgument(Reason.INVALID_REQUEST, "wrong")

    consumer = _consumer(handler, MemoryProducer())
    for offset in range(MAX_DEAD_LETTERS_IN_A_ROW):
        consumer.handle(_event(offset), threading.Event())
    with pytest.raises(RuntimeError, match="in a row"):
        consumer.handle(_event(99), threading.Event())


def test_an_event_that_meets_a_defect_becomes_a_dead_letter_and_the_next_is_handled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(HandlerFailed, "retry_seconds", 0.05)
    attempts: list[int] = []

    def handler(event: Event) -> None:
        attempts.append(event.offset)
        if event.offset == 7:
            raise ZeroDivisionError("Sarah Jenkins")

    producer = MemoryProducer()
    consumer = _consumer(handler, producer)
    assert consumer.handle(_event(7), threading.Event()) and consumer.handle(_event(8), threading.Event())
    assert attempts.count(7) > 1 and attempts[-1] == 8
    (letter,) = producer.messages(DEAD_LETTERS)
    assert isinstance(letter, drafts_pb2.EventDeadLettered)
    assert (letter.offset, letter.reason) == (7, "HANDLER_FAILED")
    assert "Sarah" not in "".join(capsys.readouterr())


def test_a_defect_that_heals_by_itself_loses_nothing() -> None:
    attempts: list[Event] = []

    def handler(event: Event) -> None:
        attempts.append(event)
        if len(attempts) == 1:
            raise ZeroDivisionError

    producer = MemoryProducer()
    assert _consumer(handler, producer).handle(_event(), threading.Event())
    assert len(attempts) == 2 and not producer.sent


def test_a_service_that_fails_at_every_event_stops_before_it_drains_the_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HandlerFailed, "retry_seconds", 0.0)

    def handler(event: Event) -> None:
        raise ZeroDivisionError

    producer = MemoryProducer()
    consumer = _consumer(handler, producer)
    for offset in range(5):
        consumer.handle(_event(offset), threading.Event())
    with pytest.raises(RuntimeError, match="in a row"):
        consumer.handle(_event(5), threading.Event())
    assert len(producer.messages(DEAD_LETTERS)) == 6


def test_a_lack_of_memory_crashes_the_process() -> None:
    def handler(event: Event) -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        _consumer(handler, MemoryProducer()).handle(_event(), threading.Event())


def test_a_stop_between_two_attempts_leaves_the_event_uncommitted() -> None:
    stop = threading.Event()

    def handler(event: Event) -> None:
        stop.set()
        raise Unavailable(Reason.DATABASE_UNAVAILABLE, "down")

    assert not _consumer(handler, MemoryProducer()).handle(_event(), stop)


class Member:
    """A client with two partitions whose group refuses the commit of `refused`. Its partitions begin at `oldest`."""

    def __init__(self, refused: tuple[TopicPartition, int], error: type[KafkaError] = CommitFailedError) -> None:
        self.refused, self.error = refused, error
        self.sought: dict[TopicPartition, int] = {}
        self.commits: list[tuple[int, int]] = []
        self.position: int | None = 10
        self.first, self.oldest = 10, 0
        self.paused_partitions: set[TopicPartition] = set()
        self.polls = 0

    def poll(self, timeout_ms: int) -> Mapping[TopicPartition, list[Any]]:
        """Three offsets of each partition, alternating in time; nothing while they are paused."""
        self.polls += 1
        if self.paused_partitions:
            return {}
        return {
            TopicPartition(TOPIC, number): [
                _record(number, self.first + step, 2 * (self.first + step) + number) for step in range(3)
            ]
            for number in (0, 1)
        }

    def group_metadata(self) -> Any:
        return SimpleNamespace(state=MemberState.STABLE)

    def pause(self, *partitions: TopicPartition) -> None:
        self.paused_partitions |= set(partitions)

    def paused(self) -> set[TopicPartition]:
        return set(self.paused_partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        self.paused_partitions -= set(partitions)

    def assignment(self) -> set[TopicPartition]:
        return {TopicPartition(TOPIC, number) for number in (0, 1)}

    def commit(self, offsets: Mapping[TopicPartition, Any]) -> None:
        ((partition, commit),) = offsets.items()
        if (partition, commit.offset) == self.refused:
            raise self.error
        self.commits.append((partition.partition, commit.offset))

    def beginning_offsets(
        self, partitions: list[TopicPartition], timeout_ms: int | None
    ) -> Mapping[TopicPartition, int]:
        return dict.fromkeys(partitions, self.oldest)

    def committed(self, partition: TopicPartition) -> int | None:
        return self.position

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self.sought[partition] = offset


def _record(partition: int, offset: int, timestamp: int) -> Any:
    fields = {"topic": TOPIC, "partition": partition, "offset": offset, "timestamp": timestamp}
    return SimpleNamespace(key=b"key", value=b"", headers=[], **fields)


def test_reads_the_rest_of_a_batch_again_after_a_rebalance() -> None:
    handled: list[tuple[int, int]] = []
    member, joined = Member((TopicPartition(TOPIC, 1), 12)), Rebalances()
    consumer = _consumer(lambda event: handled.append((event.partition, event.offset)), MemoryProducer())
    with ThreadPoolExecutor(1) as pool:
        consumer.poll_once(member, pool, threading.Event(), joined)
    assert handled == [(0, 10), (1, 10), (0, 11), (1, 11)]
    assert member.commits == [(0, 11), (1, 11), (0, 12)]
    assert member.sought == {TopicPartition(TOPIC, 0): 12, TopicPartition(TOPIC, 1): 11}


def test_a_broker_that_is_away_during_a_commit_costs_no_membership() -> None:
    member, faults = (
        Member((TopicPartition(TOPIC, 1), 12), KafkaTimeoutError),
        Faults(now=itertools.count(0, 10).__next__),
    )
    consumer = Consumer(
        KafkaSettings(),
        service="training",
        topics={TOPIC: lambda event: None},
        producer=MemoryProducer(),
        faults=faults,
    )
    _poll(consumer, member)
    assert member.sought == {TopicPartition(TOPIC, 0): 12, TopicPartition(TOPIC, 1): 11}
    # While the broker is away, polls return nothing, and the service says what it waits for.
    member.paused_partitions = set(member.assignment())
    _poll(consumer, member)
    assert [fault.reason for fault in faults.all()] == ["KAFKA_UNAVAILABLE"]
    member.paused_partitions.clear()
    member.refused = (TopicPartition(TOPIC, 1), 0)
    _poll(consumer, member)
    assert faults.all() == []


@pytest.mark.parametrize("error", [GroupAuthorizationFailedError, FencedInstanceIdError])
def test_a_member_that_may_not_commit_ends_its_session(error: type[KafkaError]) -> None:
    member = Member((TopicPartition(TOPIC, 1), 12), error)
    with pytest.raises(BrokerLost):
        _poll(_consumer(lambda event: None, MemoryProducer()), member)


def test_a_partition_that_moved_away_is_neither_committed_nor_read_from_an_old_place() -> None:
    handled: list[tuple[int, int]] = []
    moved, rebalances = TopicPartition(TOPIC, 1), Rebalances()

    def handler(event: Event) -> None:
        handled.append((event.partition, event.offset))
        if event.partition == moved.partition:
            rebalances.on_partitions_revoked({moved})

    member = Member((TopicPartition(TOPIC, 0), 0))
    with ThreadPoolExecutor(1) as pool:
        _consumer(handler, MemoryProducer()).poll_once(member, pool, threading.Event(), rebalances)
    assert handled == [(0, 10), (1, 10)]
    assert member.commits == [(0, 11)]
    assert member.sought == {TopicPartition(TOPIC, 0): 11}


def test_a_long_batch_is_interrupted_for_polls_and_goes_on_where_it_was() -> None:
    handled: list[tuple[int, int]] = []
    member = Member((TopicPartition(TOPIC, 0), 0))
    topics: dict[str, Handler] = {TOPIC: lambda event: handled.append((event.partition, event.offset))}
    consumer = Consumer(
        KafkaSettings(), service="training", topics=topics, producer=MemoryProducer(), batch_seconds=0.0
    )
    with ThreadPoolExecutor(1) as pool:
        consumer.poll_once(member, pool, threading.Event(), Rebalances())
    assert handled == [(0, 10), (1, 10), (0, 11), (1, 11), (0, 12), (1, 12)]
    assert member.polls > 1
    assert member.sought == {} and not member.paused_partitions


def _poll(consumer: Consumer, member: Member, rebalances: Rebalances | None = None) -> None:
    with ThreadPoolExecutor(1) as pool:
        consumer.poll_once(member, pool, threading.Event(), rebalances or Rebalances())


def _expired(producer: MemoryProducer) -> list[tuple[str, int, int, int]]:
    letters: list[Any] = producer.messages(DEAD_LETTERS)
    return sorted((letter.reason, letter.partition, letter.offset, letter.count) for letter in letters)


def test_events_that_expired_before_they_were_read_are_counted_and_stated_once() -> None:
    producer, member = MemoryProducer(), Member((TopicPartition(TOPIC, 1), -1))
    member.position, member.oldest = 4, 10
    consumer = _consumer(lambda event: None, producer)
    _poll(consumer, member)
    _poll(consumer, member)
    assert _expired(producer) == [("EVENT_EXPIRED", 0, 4, 6), ("EVENT_EXPIRED", 1, 4, 6)]
    assert sorted(member.commits[:2]) == [(0, 10), (1, 10)]


def test_events_that_expire_while_the_consumer_is_busy_are_stated_too() -> None:
    producer, member = MemoryProducer(), Member((TopicPartition(TOPIC, 1), -1))
    consumer = _consumer(lambda event: None, producer)
    _poll(consumer, member)
    assert _expired(producer) == []
    member.first, member.oldest = 20, 18
    _poll(consumer, member)
    assert _expired(producer) == [("EVENT_EXPIRED", 0, 13, 5), ("EVENT_EXPIRED", 1, 13, 5)]


def test_a_new_group_and_offsets_that_compaction_took_are_no_gap() -> None:
    producer, member = MemoryProducer(), Member((TopicPartition(TOPIC, 1), -1))
    member.position, member.oldest = None, 10
    faults = Faults()
    consumer = Consumer(
        KafkaSettings(), service="training", topics={TOPIC: lambda event: None}, producer=producer, faults=faults
    )
    _poll(consumer, member)
    member.first = 50
    _poll(consumer, member)
    assert _expired(producer) == []
    # Nobody knows what the group had read, so an operator gets a notice.
    assert {(fault.reason, fault.waits) for fault in faults.all()} == {("POSITION_UNKNOWN", False)}
    assert "offsets.retention.minutes" in faults.all()[0].message


def test_events_that_expire_before_the_first_one_of_a_partition_was_handled_are_stated() -> None:
    producer, member = MemoryProducer(), Member((TopicPartition(TOPIC, 1), -1))
    member.position, member.oldest = None, 0
    member.paused_partitions = set(member.assignment())
    _poll(_consumer(lambda event: None, producer), member)
    assert sorted(member.commits) == [(0, 0), (1, 0)]
    # The next member begins with what the first one committed, and no event was handled in between.
    member.position, member.oldest = 0, 4
    _poll(_consumer(lambda event: None, producer), member)
    assert _expired(producer) == [("EVENT_EXPIRED", 0, 0, 4), ("EVENT_EXPIRED", 1, 0, 4)]


def test_what_another_member_handled_meanwhile_is_no_gap() -> None:
    producer, member, rebalances = MemoryProducer(), Member((TopicPartition(TOPIC, 1), -1)), Rebalances()
    consumer = _consumer(lambda event: None, producer)
    _poll(consumer, member, rebalances)
    rebalances.on_partitions_revoked(member.assignment())
    member.first = member.position = member.oldest = 30
    _poll(consumer, member, rebalances)
    assert _expired(producer) == []


def test_a_gap_in_topics_of_documents_is_one_rejection_that_stands_for_all_of_them() -> None:
    producer = MemoryProducer()
    state = reject_gap(producer, "ingestion", documents_pb2.STAGE_INGESTION, ["document.submitted.v1"])
    for gap in (Gap("document.submitted.v1", 2, 5, 12), Gap("document.submitted.v1", 2, 5, 12), Gap(TOPIC, 0, 1, 2)):
        state(gap)
    (rejected,) = producer.messages("document.rejected.v1")
    assert isinstance(rejected, documents_pb2.DocumentRejected)
    assert rejected.reason == documents_pb2.REJECTION_REASON_EXPIRED
    assert (rejected.expired.partition, rejected.expired.first_offset, rejected.expired.count) == (2, 5, 7)
    assert "offsets 5 to 11" in rejected.hint
    assert _expired(producer) == [("EVENT_EXPIRED", 0, 1, 1)]
