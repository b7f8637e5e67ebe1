"""Consuming events: at least once, in order by key, with four kinds of failure.

- A retryable TailorError is retried with backoff; if it lasts, it crashes the process.
- NotYet is retried for a moment. Then the event is parked (`parked.py`), so that what it waits for, and all that follows, can be read.
- Any other TailorError sends a reference to the dead-letter topic. Too many in a row crash the process rather than drain the topic.
- Every other exception is a defect. It is retried briefly, then it sends a reference to the dead-letter topic too, so that one event that a
  handler cannot bear does not stop all that follow. A few in a row crash the process: then it is not the event.

An offset is committed only after its handler returned, so that nothing is lost.

Rebalances are cooperative: a member keeps the partitions that do not move. They begin in `poll`, and the consumer does not poll while an
event is at work, unless its handler takes longer than FINISH_SECONDS: until then an event is finished and committed before its partition
can move, so that a rebalance repeats nothing.
"""

import heapq
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import kafka
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import KafkaConnectionError, KafkaTimeoutError
from kafka.structs import MemberState

from tailor import wire
from tailor.api.events.v1 import drafts_pb2
from tailor.errors import NotYet, Reason, TailorError, Unavailable
from tailor.events.availability import Availability
from tailor.events.clients import (
    IDLE_SECONDS,
    POLL_MS,
    BrokerLost,
    GroupChanged,
    IdlePause,
    RightMissing,
    broker_errors,
    find_unusable,
    open_consumer,
    to_event,
    wait_for_broker,
)
from tailor.events.dead_letters import DeadLetters, EventPlace, NoDeadLetters, SqlDeadLetters, place_of
from tailor.events.envelope import Event, derive_id
from tailor.events.expired import GapFinder, PublishGap, dead_letter_gap
from tailor.events.faults import Faults
from tailor.events.parked import ParkedEvents, part_of
from tailor.events.producer import Producer
from tailor.heartbeats import Heartbeats
from tailor.logging import get_logger, place
from tailor.retry import Stopped, retry
from tailor.settings import KafkaSettings
from tailor.telemetry import EVENT_SECONDS, EVENTS

log = get_logger(__name__)

Handler = Callable[[Event], None]

DEAD_LETTERS = "event.dead_lettered.v1"
PART = "consumer"
MAX_ATTEMPTS = 10
FIRST_RETRY_SECONDS = 0.4
MAX_RETRY_SECONDS = 30.0
MAX_DEAD_LETTERS_IN_A_ROW = 50
# A defect counts as ten dead letters, so that the sixth in a row is too many.
DEFECT_WEIGHT = 10
# While the group is being joined, a poll does nothing else.
JOIN_MS = 500
# What kafka-python raises while the broker is away.
AWAY = (KafkaConnectionError, KafkaTimeoutError)
# A client whose broker is away would wait much longer to leave its group.
CLOSE_MS = 2_000
# A rebalance waits this long for the event at work. Longer handlers go on while the member polls, and joins with them unfinished.
FINISH_SECONDS = 20.0
# Then a batch is interrupted for a poll, so that other members wait for an event and not for all of a batch.
BATCH_SECONDS = 2.0
# A client that has not polled for this long hangs in its library. Polls continue during long handlers, and a lost broker ends the session.
SILENT_SECONDS = 300.0
# Limits of one fetch; a member holds up to two besides the event at work.
MAX_POLL_RECORDS = 20
FETCH_MAX_BYTES = 8 * 1024 * 1024


class HandlerFailed(Unavailable):
    """A handler raised an exception that is no TailorError. Tried again for a moment, in case the cause was the moment's."""

    retry_seconds = 2.0


class Consumer:
    """One member of a service's consumer group. A handler may take minutes: polling continues meanwhile."""

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        service: str,
        topics: Mapping[str, Handler],
        producer: Producer,
        sleep: Callable[[float], None] | None = None,
        batch_seconds: float = BATCH_SECONDS,
        faults: Faults | None = None,
        letters: DeadLetters | None = None,
        publish_gap: PublishGap | None = None,
        heartbeats: Heartbeats | None = None,
    ) -> None:
        self._settings = settings
        self._service = service
        self._heartbeats = heartbeats or Heartbeats()
        self._handlers = dict(topics)
        self._producer = producer
        self._sleep = sleep
        self._batch_seconds = batch_seconds
        self._dead_in_a_row = 0
        self._is_lost = False
        self._pause = IdlePause()
        self._group = settings.kafka_group_prefix + service
        self._faults = faults or Faults()
        self._letters = letters or NoDeadLetters()
        prefix = settings.kafka_topic_prefix
        self._available = Availability(
            [prefix + topic for topic in topics],
            self._faults,
            lambda absent: find_unusable(settings, absent, "READ"),
        )
        self._gaps = GapFinder(publish_gap or dead_letter_gap(producer, service), prefix, self._faults)

    def run(self, stop: threading.Event) -> None:
        """Handle events until `stop` is set. Blocks; waits for a lost broker. Raises the errors that must crash the process."""
        while not stop.is_set():
            with wait_for_broker(stop, self._faults, PART):
                try:
                    self._session(stop)
                except RightMissing as error:
                    self._available.refuse(error)

    def _session(self, stop: threading.Event) -> None:
        """Handle events from the committed offsets on, with one client."""
        rebalances = Rebalances()
        self._is_lost = False
        self._gaps.reset()
        client = open_consumer(
            self._settings,
            group_id=self._group,
            client_id=self._service,
            group_instance_id=self._settings.kafka_group_instance_id or None,
            partition_assignment_strategy=(CooperativeStickyAssignor(),),
            auto_offset_reset="earliest",
            max_poll_records=MAX_POLL_RECORDS,
            fetch_max_bytes=FETCH_MAX_BYTES,
        )
        try:
            with broker_errors(self._settings, right="READ", group=self._group):
                client.subscribe(self._available.readable(), listener=rebalances)
                # Learn of the partitions before joining. A member that learns of them later joins again, and if a poll ends before
                # that is done, kafka-python believes that it has joined and reads nothing.
                self._available.note(client.topics())
            with ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"{self._service}-handler") as pool:
                while not (stop.is_set() or self._has_other_topics(client)):
                    self.poll_once(client, pool, stop, rebalances)
        finally:
            self._heartbeats.end(PART)
            client.close(autocommit=False, timeout_ms=CLOSE_MS)

    def _has_other_topics(self, client: Any) -> bool:
        """True if a topic that could not be read can be tried again, with a new subscription."""
        if not self._available.is_due():
            return False
        with broker_errors(self._settings):
            return self._available.has_changed(client.topics())

    def poll_once(self, client: Any, pool: ThreadPoolExecutor, stop: threading.Event, rebalances: "Rebalances") -> None:
        """Poll, then handle and commit what arrived, one event after the other."""
        self._heartbeats.beat(PART, SILENT_SECONDS)
        with broker_errors(self._settings, right="READ", group=self._group):
            batches = client.poll(timeout_ms=_poll_ms(client))
            self._gaps.forget(rebalances.revoked)
            if _is_member(client):
                for partition, offset in self._gaps.follow(client, client.assignment(), batches).items():
                    self._commit(client, partition, offset)
        if batches or rebalances.revoked:
            self._is_lost = False
        if _is_member(client):
            if not self._is_lost:
                self._faults.clear(PART)
            self._pause.after(batches, stop)
        rebalances.revoked.clear()
        unhandled, polled = _first_offsets(batches), time.monotonic()
        # In order of time across partitions: an event may depend on an earlier one in another partition of the same batch.
        for record in heapq.merge(*batches.values(), key=lambda record: record.timestamp):
            if time.monotonic() - polled > self._batch_seconds:
                _poll_paused(client, lambda: _is_member(client) or stop.is_set())
                polled = time.monotonic()
            is_handled = not rebalances.revoked and self._handle_and_commit(client, pool, stop, rebalances, record)
            if is_handled:
                partition = kafka.TopicPartition(record.topic, record.partition)
                unhandled[partition] = record.offset + 1
                self._gaps.advance(partition, record.offset + 1)
            if not is_handled or rebalances.revoked:
                # A partition that moved away, even if it came back, continues from its committed offset.
                _seek(client, {key: offset for key, offset in unhandled.items() if key not in rebalances.revoked})
                return

    def _handle_and_commit(
        self, client: Any, pool: ThreadPoolExecutor, stop: threading.Event, rebalances: "Rebalances", record: Any
    ) -> bool:
        """Returns False if the event was not handled, or its offset could not be committed."""
        self._heartbeats.beat(PART, SILENT_SECONDS)
        event = to_event(record, self._settings.kafka_topic_prefix)
        if stop.is_set() or not self._wait(client, pool.submit(self.handle, event, stop), stop):
            return False
        partition = kafka.TopicPartition(record.topic, record.partition)
        return partition not in rebalances.revoked and self._commit(client, partition, record.offset + 1)

    def _commit(self, client: Any, partition: Any, offset: int) -> bool:
        """Commit an offset. Returns False if the group is rebalancing and refuses it, or the broker is away.

        The client stays, since a broker that returns soon still knows it as a member. It would take a new client for another one, and give
        it no partition until the session of the old one has ended.
        """
        try:
            with broker_errors(self._settings, right="READ", group=self._group):
                client.commit({partition: kafka.structs.OffsetAndMetadata(offset, "", -1)})
        except GroupChanged:
            return False
        except BrokerLost as error:
            # A fenced member, for example, needs a new client.
            if not isinstance(error.__context__, AWAY):
                raise
            self._is_lost = True
            self._faults.report(PART, error)
            return False
        return True

    def _wait(self, client: Any, future: "Future[bool]", stop: threading.Event) -> bool:
        """Wait for the handler, and poll if it takes long, so that the group keeps this member. Returns the handler's result."""
        wait([future], timeout=FINISH_SECONDS)

        def is_done() -> bool:
            self._heartbeats.beat(PART, SILENT_SECONDS)
            wait([future], timeout=IDLE_SECONDS)
            # During a join, a commit would be refused.
            return future.done() and (_is_member(client) or stop.is_set())

        if not future.done():
            _poll_paused(client, is_done)
        return future.result()

    def handle(self, event: Event, stop: threading.Event) -> bool:
        """Handle one event, with retries and dead letters. Returns False if `stop` was set first. Raises what must crash the process."""
        started = time.monotonic()

        def log_retry(error: TailorError, attempt: int) -> None:
            EVENTS.labels(event.topic, "retried").inc()
            log.warning("event retried", topic=event.topic, offset=event.offset, reason=error.reason, attempt=attempt)

        try:
            retry(
                lambda: self._handle_or_skip(event),
                stop=stop,
                attempts=MAX_ATTEMPTS,
                initial_seconds=FIRST_RETRY_SECONDS,
                max_seconds=MAX_RETRY_SECONDS,
                on_wait=log_retry,
                sleep=self._sleep,
            )
        except Stopped:
            return False
        except TailorError as error:
            if isinstance(error, NotYet):
                self._park(event, error, stop)
                return True
            if error.retryable and not isinstance(error, HandlerFailed):
                log_retry(error, MAX_ATTEMPTS)
                raise
            retry(
                lambda error=error: self._dead_letter(event, error),  # type: ignore[misc]
                stop=stop,
                attempts=MAX_ATTEMPTS,
                on_wait=log_retry,
                sleep=self._sleep,
            )
            self._count_dead_letter(event, DEFECT_WEIGHT if isinstance(error, HandlerFailed) else 1)
        else:
            self._dead_in_a_row = 0
            EVENTS.labels(event.topic, "handled").inc()
        EVENT_SECONDS.labels(event.topic).observe(time.monotonic() - started)
        return True

    def _park(self, event: Event, error: NotYet, stop: threading.Event) -> None:
        log.warning(
            "event parked", topic=event.topic, partition=event.partition, offset=event.offset, reason=error.reason
        )
        retry(lambda: self._letters.park(place_of(event), error), stop=stop, attempts=MAX_ATTEMPTS, sleep=self._sleep)
        self._faults.notice(part_of(place_of(event)), error)
        EVENTS.labels(event.topic, "parked").inc()

    def parked(self, letters: SqlDeadLetters, read: Callable[[EventPlace], Event]) -> ParkedEvents:
        """What handles parked events again."""
        return ParkedEvents(letters, read, self._handlers, dead_letter=self._dead_letter, faults=self._faults)

    def _handle_or_skip(self, event: Event) -> None:
        """Handle an event, unless an operator moved past it. Asked before each attempt, so that a skip also ends retries."""
        if self._letters.is_skipped(place_of(event)):
            EVENTS.labels(event.topic, "skipped").inc()
            log.warning(
                "event skipped by an operator", topic=event.topic, partition=event.partition, offset=event.offset
            )
            return
        try:
            self._handlers[event.topic](event)
        except (TailorError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - a defect stops one event only (docs/decisions/0045)
            # The message could hold personal data; type and place cannot.
            at = place(error)
            log.error("handler failed", topic=event.topic, offset=event.offset, error=type(error).__name__, at=at)
            raise HandlerFailed(
                Reason.HANDLER_FAILED,
                f"A defect: {type(error).__name__} at {at}. Report it, update the service, then use "
                f"`tailor event replay {self._service} {event.topic}/{event.partition}/{event.offset}`.",
            ) from None

    def _dead_letter(self, event: Event, error: TailorError) -> None:
        log.error(
            "event dead-lettered",
            topic=event.topic,
            partition=event.partition,
            offset=event.offset,
            reason=error.reason,
        )
        self._letters.add(place_of(event), error)
        letter = drafts_pb2.EventDeadLettered(
            topic=event.topic,
            partition=event.partition,
            offset=event.offset,
            consumer=self._service,
            reason=error.reason,
            create_time=wire.now(),
        )
        event_id = derive_id("ded", self._service, event.topic, event.partition, event.offset, event.timestamp_ms)
        self._producer.send(DEAD_LETTERS, event.topic, letter, event_id)

    def _count_dead_letter(self, event: Event, weight: int) -> None:
        EVENTS.labels(event.topic, "dead_lettered").inc()
        self._dead_in_a_row += weight
        if self._dead_in_a_row > MAX_DEAD_LETTERS_IN_A_ROW:
            raise RuntimeError(f"too many events of {event.topic} in a row could not be handled; see {DEAD_LETTERS}")


class Rebalances(kafka.ConsumerRebalanceListener):  # type: ignore[misc]
    """Collects the partitions that the group took away. kafka-python calls it while this consumer polls."""

    def __init__(self) -> None:
        self.revoked: set[kafka.TopicPartition] = set()

    def on_partitions_revoked(self, revoked: Any) -> None:
        """Called for partitions that move to another member, and for all of a member that the group has given up."""
        self.revoked.update(revoked)

    def on_partitions_assigned(self, assigned: Any) -> None:
        """Called for partitions that are new to this member. They start from their committed offsets."""


def _is_member(client: Any) -> bool:
    """True while the client has its place in the group; False while it joins."""
    return bool(client.group_metadata().state == MemberState.STABLE)


def _poll_ms(client: Any) -> int:
    return POLL_MS if _is_member(client) else JOIN_MS


def _poll_paused(client: Any, is_done: Callable[[], bool]) -> None:
    """Poll without reading, at least once and until `is_done`: a rebalance may happen, and the group keeps this member."""
    with broker_errors():
        client.pause(*client.assignment())
        while True:
            # Partitions that were assigned meanwhile are not paused yet.
            _seek(client, _first_offsets(client.poll(timeout_ms=_poll_ms(client))))
            client.pause(*client.assignment())
            if is_done():
                break
        client.resume(*client.paused())


def _first_offsets(batches: Mapping[Any, Any]) -> dict[Any, int]:
    return {partition: records[0].offset for partition, records in batches.items()}


def _seek(client: Any, offsets: Mapping[Any, int]) -> None:
    """Read the partitions that are still assigned from these offsets again; later events were not handled."""
    for partition, offset in offsets.items():
        if partition in client.assignment():
            client.seek(partition, offset)
