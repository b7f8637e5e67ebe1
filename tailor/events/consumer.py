"""Consuming events: at least once, in order by key, with three kinds of failure.

- A retryable TailorError is retried with backoff; if it lasts, it crashes the process.
- Any other TailorError sends a reference to the dead-letter topic. Too many in a row crash the process rather than drain the topic.
- Every other exception crashes the process.

An offset is committed only after its handler returned, so that nothing is lost.
"""

import heapq
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import kafka

from tailor import wire
from tailor.api.events.v1 import drafts_pb2
from tailor.errors import TailorError
from tailor.events.availability import Availability
from tailor.events.clients import (
    IDLE_SECONDS,
    POLL_MS,
    GroupChanged,
    IdlePause,
    RightMissing,
    broker_errors,
    open_consumer,
    to_event,
    wait_for_broker,
)
from tailor.events.dead_letters import DeadLetters, NoDeadLetters, place_of
from tailor.events.envelope import Event, derive_id
from tailor.events.faults import Faults
from tailor.events.gaps import GapFinder, StateGap, dead_letter_gap
from tailor.events.producer import Producer
from tailor.logging import get_logger
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
# A poll that ends while the group is being joined aborts the join, and every other member starts again. Longer polls cost processor
# time if the broker answers empty fetches at once.
JOIN_MS = 500
# A client whose broker is away would wait much longer to leave its group.
CLOSE_MS = 2_000
JOIN_PATIENCE_SECONDS = 15.0
# Limits of one fetch; a member holds up to two besides the event at work.
MAX_POLL_RECORDS = 20
FETCH_MAX_BYTES = 8 * 1024 * 1024


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
        faults: Faults | None = None,
        letters: DeadLetters | None = None,
        state_gap: StateGap | None = None,
    ) -> None:
        self._settings = settings
        self._service = service
        self._handlers = dict(topics)
        self._producer = producer
        self._sleep = sleep
        self._dead_in_a_row = 0
        self._pause = IdlePause()
        self._faults = faults or Faults()
        self._letters = letters or NoDeadLetters()
        self._gaps = GapFinder(state_gap or dead_letter_gap(producer, service))
        self._assigned_at = -1
        self._available = Availability(self._handlers, self._faults)

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
        self._assigned_at = -1
        client = open_consumer(
            self._settings,
            group_id=self._service,
            client_id=self._service,
            group_instance_id=self._settings.kafka_group_instance_id or None,
            auto_offset_reset="earliest",
            max_poll_records=MAX_POLL_RECORDS,
            fetch_max_bytes=FETCH_MAX_BYTES,
        )
        try:
            with broker_errors(self._settings, right="READ", group=self._service):
                client.subscribe(self._available.readable(), listener=rebalances)
                # Learn of the partitions before joining. A member that learns of them later joins again, and if a poll ends before
                # that is done, kafka-python believes that it has joined and reads nothing.
                self._available.note(client.topics())
            with ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"{self._service}-handler") as pool:
                while not (stop.is_set() or rebalances.is_overdue or self._has_other_topics(client)):
                    self.poll_once(client, pool, stop, rebalances)
                    if rebalances.is_joined:
                        self._faults.clear(PART)
        finally:
            client.close(autocommit=False, timeout_ms=CLOSE_MS)

    def _has_other_topics(self, client: Any) -> bool:
        """True if a topic that could not be read can be tried again, with a new subscription."""
        if not self._available.is_due():
            return False
        with broker_errors(self._settings):
            return self._available.has_changed(client.topics())

    def poll_once(self, client: Any, pool: ThreadPoolExecutor, stop: threading.Event, rebalances: "Rebalances") -> None:
        """Poll, then handle and commit what arrived, one event after the other."""
        with broker_errors(self._settings, right="READ", group=self._service):
            batches = client.poll(timeout_ms=rebalances.poll_ms)
        if rebalances.is_joined:
            self._find_gaps(client, batches, rebalances)
            self._pause.after(batches, stop)
        count_before = rebalances.count
        unhandled = _first_offsets(batches)
        # In order of time across partitions: an event may depend on an earlier one in another partition of the same batch.
        for record in heapq.merge(*batches.values(), key=lambda record: record.timestamp):
            partition = kafka.TopicPartition(record.topic, record.partition)
            if stop.is_set() or not self._wait(client, pool.submit(self.handle, to_event(record), stop), rebalances):
                return
            # While the group rebalances, a commit would be refused.
            is_assigned = rebalances.is_joined and partition in client.assignment()
            is_committed = is_assigned and _commit(client, partition, record.offset + 1)
            if is_committed:
                unhandled[partition] = record.offset + 1
                self._gaps.advance(partition, record.offset + 1)
            if not is_committed or rebalances.count != count_before:
                # The group may have assigned the same partitions again, with positions beyond the rest of this batch.
                _seek(client, unhandled)
                return

    def _find_gaps(self, client: Any, batches: Mapping[Any, Any], rebalances: "Rebalances") -> None:
        """State what expired unread: since the last commit after each rebalance, and while this member was busy."""
        with broker_errors(self._settings, right="READ", group=self._service):
            if self._assigned_at == rebalances.count:
                self._gaps.check(client, batches)
                return
            for partition, offset in self._gaps.start(client, client.assignment()).items():
                _commit(client, partition, offset)
            self._assigned_at = rebalances.count

    def _wait(self, client: Any, future: "Future[bool]", rebalances: "Rebalances") -> bool:
        """Poll until the handler returns, so that the group keeps this member. Returns the handler's result."""
        wait([future], timeout=IDLE_SECONDS)
        if future.done():
            return future.result()
        with broker_errors():
            client.pause(*client.assignment())
            while not future.done():
                _seek(client, _first_offsets(client.poll(timeout_ms=rebalances.poll_ms)))
                wait([future], timeout=IDLE_SECONDS)
                client.pause(*client.assignment())
            client.resume(*client.paused())
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
            if error.retryable:
                log_retry(error, MAX_ATTEMPTS)
                raise
            retry(
                lambda error=error: self._dead_letter(event, error),  # type: ignore[misc]
                stop=stop,
                attempts=MAX_ATTEMPTS,
                on_wait=log_retry,
                sleep=self._sleep,
            )
            self._count_dead_letter(event)
        else:
            self._dead_in_a_row = 0
            EVENTS.labels(event.topic, "handled").inc()
        EVENT_SECONDS.labels(event.topic).observe(time.monotonic() - started)
        return True

    def _handle_or_skip(self, event: Event) -> None:
        """Handle an event, unless an operator moved past it. Asked before each attempt, so that a skip also ends retries."""
        if self._letters.is_skipped(place_of(event)):
            EVENTS.labels(event.topic, "skipped").inc()
            log.warning(
                "event skipped by an operator", topic=event.topic, partition=event.partition, offset=event.offset
            )
            return
        self._handlers[event.topic](event)

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

    def _count_dead_letter(self, event: Event) -> None:
        EVENTS.labels(event.topic, "dead_lettered").inc()
        self._dead_in_a_row += 1
        if self._dead_in_a_row > MAX_DEAD_LETTERS_IN_A_ROW:
            raise RuntimeError(
                f"{self._dead_in_a_row} events of {event.topic} in a row could not be handled; see {DEAD_LETTERS}"
            )


class Rebalances(kafka.ConsumerRebalanceListener):  # type: ignore[misc]
    """Follows the group's rebalances. `is_joined` is True while this member's partitions are assigned; `count` counts changes."""

    def __init__(self, patience_seconds: float = JOIN_PATIENCE_SECONDS) -> None:
        self.count = 0
        self.is_joined = False
        self._patience_seconds = patience_seconds
        self._joining_since = time.monotonic()

    @property
    def poll_ms(self) -> int:
        """How long the next poll may take: long enough to complete a join."""
        return POLL_MS if self.is_joined else JOIN_MS

    @property
    def is_overdue(self) -> bool:
        """True if a join was aborted and will never complete; only a new client joins again."""
        return not self.is_joined and time.monotonic() - self._joining_since > self._patience_seconds

    def on_partitions_revoked(self, revoked: Any) -> None:
        """Called by kafka-python when a rebalance begins."""
        self.count += 1
        self.is_joined = False
        self._joining_since = time.monotonic()

    def on_partitions_assigned(self, assigned: Any) -> None:
        """Called by kafka-python when a rebalance has ended."""
        self.count += 1
        self.is_joined = True


def _first_offsets(batches: Mapping[Any, Any]) -> dict[Any, int]:
    return {partition: records[0].offset for partition, records in batches.items()}


def _seek(client: Any, offsets: Mapping[Any, int]) -> None:
    """Read the partitions that are still assigned from these offsets again; later events were not handled."""
    for partition, offset in offsets.items():
        if partition in client.assignment():
            client.seek(partition, offset)


def _commit(client: Any, partition: Any, offset: int) -> bool:
    """Commit an offset. Returns False if the group is rebalancing and refuses it."""
    try:
        with broker_errors():
            client.commit({partition: kafka.structs.OffsetAndMetadata(offset, "", -1)})
    except GroupChanged:
        return False
    return True
