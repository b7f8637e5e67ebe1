"""Reading topics without a consumer group: whole tables, and tails."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import kafka

from tailor.errors import FailedPrecondition, Reason, TailorError
from tailor.events.clients import (
    POLL_MS,
    IdlePause,
    broker_errors,
    find_unusable,
    open_consumer,
    to_event,
    topic_missing,
    wait_for_broker,
)
from tailor.events.consumer import Handler
from tailor.events.envelope import Event
from tailor.events.faults import Faults
from tailor.events.offsets import find_ends, find_starts
from tailor.logging import get_logger
from tailor.settings import KafkaSettings

log = get_logger(__name__)

READ_MS = 5_000


class TableReader:
    """Applies every event of a topic from its beginning, in each replica. `caught_up` is set once the end was reached."""

    def __init__(self, settings: KafkaSettings, topic: str, apply: Handler, faults: Faults | None = None) -> None:
        self._settings = settings
        self._topic = topic
        self._apply = apply
        self._faults = faults or Faults()
        self.caught_up = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Apply events until `stop` is set. Blocks; after a lost broker it reads from the beginning again.

        Skips events that `apply` rejects with an error that is not retryable, with a notice that stays until the process ends; a retryable
        error is raised.
        """
        while not stop.is_set():
            with wait_for_broker(stop, self._faults, self._topic):
                for event in tail(self._settings, [self._topic], stop, from_beginning=True, idle=self._reach_end):
                    self._apply_or_skip(event)

    def _reach_end(self) -> None:
        self.caught_up.set()
        self._faults.clear(self._topic)

    def _apply_or_skip(self, event: Event) -> None:
        try:
            self._apply(event)
        except TailorError as error:
            if error.retryable:
                raise
            log.error("event skipped", topic=event.topic, offset=event.offset, reason=error.reason)
            self._faults.notice(f"an event of {event.topic}", error)


def read_event(settings: KafkaSettings, topic: str, partition: int, offset: int) -> Event:
    """Read one event. Blocks. Raises FailedPrecondition (EVENT_EXPIRED) if the topic no longer has it, and BrokerLost."""
    client, prefix = open_consumer(settings), settings.kafka_topic_prefix
    place = kafka.TopicPartition(prefix + topic, partition)
    try:
        with broker_errors(settings, right="READ", topic=prefix + topic):
            client.assign([place])
            start, end = find_starts(client, [place])[place], find_ends(client, [place])[place]
            records: list[Any] = []
            if start <= offset < end:
                client.seek(place, offset)
                records = client.poll(timeout_ms=READ_MS, max_records=1).get(place, [])
    finally:
        client.close()
    if not records or records[0].offset != offset:
        raise FailedPrecondition(
            Reason.EVENT_EXPIRED,
            f"{topic}, partition {partition}, no longer has offset {offset}: its retention is over.",
        )
    return to_event(records[0], prefix)


def tail(
    settings: KafkaSettings,
    topics: list[str],
    stop: threading.Event,
    *,
    from_beginning: bool,
    idle: Callable[[], None] = lambda: None,
) -> Iterator[Event]:
    """Yield the topics' events until `stop` is set. Blocks between events.

    Calls `idle` whenever no event arrives and the ends that the topics had at the start are reached. Raises BrokerLost.
    """
    client, prefix = open_consumer(settings), settings.kafka_topic_prefix
    try:
        with broker_errors(settings, right="READ"):
            partitions = [
                kafka.TopicPartition(prefix + topic, number)
                for topic in topics
                for number in sorted(client.partitions_for_topic(prefix + topic) or ())
            ]
            if absent := {prefix + topic for topic in topics} - {partition.topic for partition in partitions}:
                raise next(iter(find_unusable(settings, absent, "READ").values()), topic_missing(absent))
            client.assign(partitions)
            ends = find_ends(client, partitions)
            if from_beginning:
                client.seek_to_beginning(*partitions)
            else:
                client.seek_to_end(*partitions)
        pause = IdlePause()
        while not stop.is_set():
            with broker_errors(settings, right="READ"):
                batches = client.poll(timeout_ms=POLL_MS)
            for records in batches.values():
                yield from (to_event(record, prefix) for record in records)
            with broker_errors():
                if not batches and all(client.position(partition) >= ends[partition] for partition in partitions):
                    idle()
            pause.after(batches, stop)
    finally:
        client.close()
