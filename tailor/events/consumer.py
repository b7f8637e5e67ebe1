"""Consuming events: at least once, in order by key, with three kinds of failure.

A retryable TailorError is retried with backoff, and crashes the process when it lasts; any other TailorError sends a reference to the
dead-letter topic, and too many of those in a row stop the process rather than drain the topic; every other exception crashes it.
Offsets are committed only after a handler returned, so that nothing is lost.
"""

import heapq
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import kafka
from google.protobuf.timestamp_pb2 import Timestamp
from kafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    KafkaError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)

from tailor.api.events.v1 import drafts_pb2
from tailor.errors import Reason, TailorError, Unavailable
from tailor.events.envelope import Event, derive_id
from tailor.events.producer import Producer
from tailor.events.watch import BrokerWatch
from tailor.logging import get_logger
from tailor.settings import KafkaSettings
from tailor.telemetry import EVENT_SECONDS, EVENTS

log = get_logger(__name__)

Handler = Callable[[Event], None]

DEAD_LETTERS = "event.dead_lettered.v1"
MAX_ATTEMPTS = 10
MAX_DEAD_LETTERS_IN_A_ROW = 50
# A broker may answer an empty fetch at once instead of holding it, and is asked again for as long as a poll lasts: the pause is ours, so
# that an idle service costs little.
POLL_MS = 2
# A poll that ends while the group is being joined breaks the joining off, and has every other member start again. Longer costs processor
# time where a broker answers empty fetches at once.
JOIN_MS = 500
JOIN_PATIENCE_SECONDS = 15.0
IDLE_SECONDS = 0.3
MOST_IDLE_SECONDS = 1.0
RECONNECT_SECONDS = 1.0
# What one member holds beyond the event at work: a fetch, and another on its way.
MAX_POLL_RECORDS = 20
FETCH_MAX_BYTES = 8 * 1024 * 1024


class Consumer:
    """One member of a service's group. `run` blocks; a handler may take minutes, for polling goes on beside it."""

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        service: str,
        topics: Mapping[str, Handler],
        producer: Producer,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings = settings
        self._service = service
        self._handlers = dict(topics)
        self._producer = producer
        self._sleep = sleep
        self._dead_in_a_row = 0
        self._pause = _Pause()

    def run(self, stop: threading.Event) -> None:
        """Handle events until told to stop; a lost broker is waited for."""
        watch = _watch(self._settings)
        try:
            while not stop.is_set():
                with _waited_for(stop):
                    self._session(stop, watch)
        finally:
            watch.stop()

    def _session(self, stop: threading.Event, watch: BrokerWatch) -> None:
        """Handle events from what is committed on, until told to stop or the broker was lost."""
        losses, rebalances = watch.losses, _Rebalances()
        with _wrapped():
            client = kafka.KafkaConsumer(
                group_id=self._service,
                client_id=self._service,
                group_instance_id=self._settings.kafka_group_instance_id or None,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                max_poll_records=MAX_POLL_RECORDS,
                fetch_max_bytes=FETCH_MAX_BYTES,
                **self._settings.kafka_arguments(),
            )
            client.subscribe(list(self._handlers), listener=rebalances)
            # A member that learns of partitions after it joined joins again; where a poll ends before that is done, kafka-python takes
            # itself for joined and reads nothing: so have it learn of them first.
            client.topics()
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"{self._service}-handler") as pool:
            try:
                while not stop.is_set() and watch.losses == losses and not rebalances.overdue:
                    self._turn(client, pool, stop, rebalances)
            finally:
                client.close(autocommit=False)

    def _turn(self, client: Any, pool: ThreadPoolExecutor, stop: threading.Event, rebalances: "_Rebalances") -> None:
        with _wrapped():
            batches = client.poll(timeout_ms=rebalances.poll_ms)
        if rebalances.is_joined:
            self._pause.after(batches, stop)
        before = rebalances.count
        unhandled = _first_offsets(batches)
        # By time across partitions: what one event waits for may stand in the same batch, and came before it.
        for record in heapq.merge(*batches.values(), key=lambda one: one.timestamp):
            partition = kafka.TopicPartition(record.topic, record.partition)
            if stop.is_set() or not self._wait(client, pool.submit(self.handle, to_event(record), stop), rebalances):
                return
            # Between joining and the new partitions a commit would be refused.
            is_held = rebalances.is_joined and partition in client.assignment()
            is_kept = is_held and _commit(client, partition, record.offset + 1)
            if is_kept:
                unhandled[partition] = record.offset + 1
            if not is_kept or rebalances.count != before:
                # The group may have given the same partitions back, with positions that are past what is left of this batch.
                _read_again(client, unhandled)
                return

    def _wait(self, client: Any, future: "Future[bool]", rebalances: "_Rebalances") -> bool:
        """Wait for the handler while polling, so that the group keeps this member."""
        wait([future], timeout=IDLE_SECONDS)
        if future.done():
            return future.result()
        with _wrapped():
            client.pause(*client.assignment())
            while not future.done():
                _read_again(client, _first_offsets(client.poll(timeout_ms=rebalances.poll_ms)))
                wait([future], timeout=IDLE_SECONDS)
                client.pause(*client.assignment())
            client.resume(*client.paused())
        return future.result()

    def handle(self, event: Event, stop: threading.Event) -> bool:
        """Handle one event, with retries and dead letters; False if told to stop before it was done. Raises what must crash."""
        started = time.monotonic()
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                self._handlers[event.topic](event)
            except TailorError as error:
                if not error.retryable:
                    self._dead_letter(event, error)
                    break
                EVENTS.labels(event.topic, "retried").inc()
                log.warning(
                    "event retried", topic=event.topic, offset=event.offset, reason=error.reason, attempt=attempt
                )
                if attempt == MAX_ATTEMPTS:
                    raise
                self._sleep(min(30.0, 0.2 * 2**attempt) * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
                if stop.is_set():
                    return False
            else:
                self._dead_in_a_row = 0
                EVENTS.labels(event.topic, "handled").inc()
                break
        EVENT_SECONDS.labels(event.topic).observe(time.monotonic() - started)
        return True

    def _dead_letter(self, event: Event, error: TailorError) -> None:
        log.error(
            "event dead-lettered",
            topic=event.topic,
            partition=event.partition,
            offset=event.offset,
            reason=error.reason,
        )
        EVENTS.labels(event.topic, "dead_lettered").inc()
        moment = Timestamp()
        moment.GetCurrentTime()
        letter = drafts_pb2.EventDeadLettered(
            topic=event.topic,
            partition=event.partition,
            offset=event.offset,
            consumer=self._service,
            reason=error.reason,
            create_time=moment,
        )
        event_id = derive_id("ded", self._service, event.topic, event.partition, event.offset, event.timestamp_ms)
        self._producer.send(DEAD_LETTERS, event.topic, letter, event_id)
        self._dead_in_a_row += 1
        if self._dead_in_a_row > MAX_DEAD_LETTERS_IN_A_ROW:
            raise RuntimeError(
                f"{self._dead_in_a_row} events of {event.topic} in a row could not be handled; look at {DEAD_LETTERS}"
            )


class _Rebalances(kafka.ConsumerRebalanceListener):  # type: ignore[misc]
    """Counts how often the group's partitions were dealt out anew, and knows how long to poll."""

    def __init__(self, patience_seconds: float = JOIN_PATIENCE_SECONDS) -> None:
        self.count = 0
        self.poll_ms = JOIN_MS
        self._patience_seconds = patience_seconds
        self._joining_since = time.monotonic()

    @property
    def is_joined(self) -> bool:
        """True while this member's partitions are its own."""
        return self.poll_ms == POLL_MS

    @property
    def overdue(self) -> bool:
        """True where joining was broken off by a poll that ended, and goes on no more: only a new client joins again."""
        return not self.is_joined and time.monotonic() - self._joining_since > self._patience_seconds

    def on_partitions_revoked(self, revoked: Any) -> None:
        """Partitions are taken away: the group is being joined again."""
        self.count += 1
        self.poll_ms = JOIN_MS
        self._joining_since = time.monotonic()

    def on_partitions_assigned(self, assigned: Any) -> None:
        """Partitions are given: the group is joined."""
        self.count += 1
        self.poll_ms = POLL_MS


class _Pause:
    """How long to wait where nothing came: longer while it stays quiet."""

    def __init__(self) -> None:
        self._seconds = IDLE_SECONDS

    def after(self, batches: Mapping[Any, Any], stop: threading.Event) -> None:
        """Wait, unless something came or it is time to stop."""
        if batches:
            self._seconds = IDLE_SECONDS
            return
        stop.wait(self._seconds)
        self._seconds = min(MOST_IDLE_SECONDS, self._seconds * 1.2)


def _first_offsets(batches: Mapping[Any, Any]) -> dict[Any, int]:
    return {partition: records[0].offset for partition, records in batches.items()}


def _read_again(client: Any, offsets: Mapping[Any, int]) -> None:
    """Have the partitions that this member still holds read again from these offsets: what came after them was not handled."""
    for partition, offset in offsets.items():
        if partition in client.assignment():
            client.seek(partition, offset)


def _commit(client: Any, partition: Any, offset: int) -> bool:
    """Keep how far a partition was handled; False where the group is dealt out anew, and this member no longer speaks for it."""
    try:
        with _wrapped():
            client.commit({partition: kafka.structs.OffsetAndMetadata(offset, "", -1)})
    except GroupChanged:
        return False
    return True


class TableReader:
    """Reads a whole topic from its beginning, without a group: every replica has all of it. `caught_up` is set once the end was reached."""

    def __init__(self, settings: KafkaSettings, topic: str, apply: Handler) -> None:
        self._settings = settings
        self._topic = topic
        self._apply = apply
        self.caught_up = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Apply events until told to stop; a lost broker is waited for, and then read from the beginning again.

        What cannot be decoded is logged and passed over.
        """
        while not stop.is_set():
            with _waited_for(stop):
                for event in tail(self._settings, [self._topic], stop, from_beginning=True, idle=self.caught_up.set):
                    self._passed(event)

    def _passed(self, event: Event) -> None:
        try:
            self._apply(event)
        except TailorError as error:
            if error.retryable:
                raise
            log.error("event passed over", topic=event.topic, offset=event.offset, reason=error.reason)


def tail(
    settings: KafkaSettings,
    topics: list[str],
    stop: threading.Event,
    *,
    from_beginning: bool,
    idle: Callable[[], None] = lambda: None,
) -> Iterator[Event]:
    """Yield the topics' events without a group, then new ones; `idle` is called once the end as first seen is reached.

    Ends when told to stop or when the broker was lost; Unavailable where it does not answer.
    """
    watch = _watch(settings)
    losses = watch.losses
    with _wrapped():
        client = kafka.KafkaConsumer(enable_auto_commit=False, **settings.kafka_arguments())
    try:
        with _wrapped():
            partitions = [
                kafka.TopicPartition(topic, number)
                for topic in topics
                for number in sorted(client.partitions_for_topic(topic) or ())
            ]
            client.assign(partitions)
            ends = client.end_offsets(partitions)
            if from_beginning:
                client.seek_to_beginning(*partitions)
            else:
                client.seek_to_end(*partitions)
        pause = _Pause()
        while not stop.is_set() and watch.losses == losses:
            with _wrapped():
                batches = client.poll(timeout_ms=POLL_MS)
            for records in batches.values():
                for record in records:
                    yield to_event(record)
            with _wrapped():
                if not batches and all(client.position(partition) >= ends[partition] for partition in partitions):
                    idle()
            pause.after(batches, stop)
    finally:
        client.close()
        watch.stop()


def to_event(record: Any) -> Event:
    """A kafka-python record as an Event; header values that are not UTF-8 are replaced."""
    return Event(
        topic=record.topic,
        key=(record.key or b"").decode(errors="replace"),
        value=record.value,
        headers={name: (value or b"").decode(errors="replace") for name, value in record.headers},
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp,
    )


def _watch(settings: KafkaSettings) -> BrokerWatch:
    watch = BrokerWatch(settings.kafka_bootstrap_servers.split(",")[0])
    if settings.kafka_resend_seconds:
        watch.start()
    return watch


class BrokerLost(Unavailable):
    """The broker itself does not answer: there is nothing to handle until it does."""


class GroupChanged(BrokerLost):
    """The group's partitions are being dealt out anew, and this member has to join again."""


@contextmanager
def _waited_for(stop: threading.Event) -> Iterator[None]:
    """Wait a moment where the broker was lost, so that the caller tries again."""
    try:
        yield
    except BrokerLost as error:
        log.warning("waiting", waiting_for="kafka", reason=error.reason)
        stop.wait(RECONNECT_SECONDS)


@contextmanager
def _wrapped() -> Iterator[None]:
    try:
        yield
    except (CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError):
        raise GroupChanged(Reason.GROUP_CHANGED, "The group's partitions are being dealt out anew.") from None
    except KafkaError as error:
        raise BrokerLost(Reason.KAFKA_UNAVAILABLE, f"The broker does not answer ({type(error).__name__}).") from None
