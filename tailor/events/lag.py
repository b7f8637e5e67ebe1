"""Watches the log for one process: whether the broker answers, how far the group is behind, and how soon events expire unread.

kafka-python's `poll` returns nothing while the broker is away, as it does while nothing is published; only a question with a deadline
tells the two apart.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import kafka

from tailor.errors import Reason, Unavailable
from tailor.events.clients import BrokerLost, broker_errors, open_consumer
from tailor.events.faults import Faults
from tailor.events.offsets import find_ends, find_starts
from tailor.events.topics import Topic, load_topics
from tailor.logging import get_logger
from tailor.settings import KafkaSettings
from tailor.telemetry import EVENTS_BEHIND, RETENTION_USED

log = get_logger(__name__)

PART = "kafka"
PAUSE_SECONDS = 2.0
# Reading the oldest unhandled event of each partition costs a fetch.
AGE_SECONDS = 15.0
ANSWER_MS = 3_000
HOUR_SECONDS = 3_600.0
# The share of its retention that the oldest unhandled event may have used before a fault is reported.
RETENTION_LIMIT = 0.5


@dataclass(frozen=True)
class Backlog:
    """The events of a topic that the group has not handled. `retention_used` is the oldest one's age as a share of the retention."""

    topic: str
    events: int
    retention_used: float


class LagMonitor:
    """Measures every few seconds. Thread-safe for one thread that runs it and any number that ask."""

    def __init__(
        self,
        settings: KafkaSettings,
        service: str,
        faults: Faults,
        *,
        now: Callable[[], float] = time.time,
        topics: Mapping[str, Topic] | None = None,
    ) -> None:
        self._settings = settings
        self._service = service
        self._group = settings.kafka_group_prefix + service
        self._prefix = settings.kafka_topic_prefix
        self._faults = faults
        self._now = now
        self._known = load_topics() if topics is None else topics
        self._shared: frozenset[str] = frozenset()
        self._tables: frozenset[str] = frozenset()
        self._backlogs: dict[str, Backlog] = {}
        self._aged_at = 0.0

    def add_shared(self, topics: Iterable[str]) -> None:
        """Watch topics that the service's group handles."""
        self._shared |= frozenset(topics)

    def add_table(self, topic: str) -> None:
        """Watch a topic that every replica reads as a whole."""
        self._tables |= {topic}

    def backlogs(self) -> Sequence[Backlog]:
        """The last measurement, by topic."""
        return [backlog for _, backlog in sorted(self._backlogs.items())]

    def retention_used(self) -> float:
        """The largest share of a topic's retention that an unhandled event has used."""
        return max((backlog.retention_used for backlog in self.backlogs()), default=0.0)

    def run(self, stop: threading.Event) -> None:
        """Measure until `stop` is set. Blocks."""
        while not stop.is_set():
            try:
                self._session(stop)
            except BrokerLost as error:
                self._faults.report(PART, error)
                stop.wait(PAUSE_SECONDS)

    def _session(self, stop: threading.Event) -> None:
        """Measure with one client until the broker is lost."""
        client = open_consumer(self._settings, group_id=self._group, client_id=f"{self._service}-watch")
        try:
            while not stop.is_set():
                self.measure(client)
                stop.wait(PAUSE_SECONDS)
        finally:
            client.close(autocommit=False, timeout_ms=0)

    def measure(self, client: Any) -> None:
        """Ask the broker once. Raises BrokerLost if it does not answer in time."""
        topics = self._shared or self._tables
        with broker_errors(self._settings, group=self._group):
            partitions = [
                kafka.TopicPartition(name, number)
                for name in sorted(self._prefix + topic for topic in topics)
                for number in sorted(client.partitions_for_topic(name) or ())
            ]
            ends = find_ends(client, partitions, ANSWER_MS)
            self._faults.clear(PART)
            if self._shared and self._now() - self._aged_at >= AGE_SECONDS:
                self._aged_at = self._now()
                self._measure_backlogs(client, ends)

    def _measure_backlogs(self, client: Any, ends: Mapping[Any, int]) -> None:
        behind: dict[str, int] = dict.fromkeys(self._shared, 0)
        used: dict[str, float] = dict.fromkeys(self._shared, 0.0)
        starts = find_starts(client, ends, ANSWER_MS)
        for partition, end in ends.items():
            # An offset that was never committed, or has expired, stands for the oldest event.
            position = max(client.committed(partition, timeout_ms=ANSWER_MS) or 0, starts.get(partition, 0))
            if position < end:
                topic = partition.topic.removeprefix(self._prefix)
                behind[topic] += end - position
                used[topic] = max(used[topic], self._share_used(client, partition, position))
        for topic in self._shared:
            self._backlogs[topic] = Backlog(topic, behind[topic], used[topic])
            EVENTS_BEHIND.labels(topic).set(behind[topic])
            RETENTION_USED.labels(topic).set(used[topic])
            self._report(self._backlogs[topic])

    def _share_used(self, client: Any, partition: Any, position: int) -> float:
        """The age of the oldest unhandled event of a partition as a share of its topic's retention; 0 if nothing expires."""
        topic = self._known.get(partition.topic.removeprefix(self._prefix))
        if topic is None or topic.kept_hours is None:
            return 0.0
        client.assign([partition])
        client.seek(partition, position)
        records = client.poll(timeout_ms=ANSWER_MS, max_records=1).get(partition, [])
        client.assign([])
        if not records:
            return 0.0
        age = max(0.0, self._now() - float(records[0].timestamp) / 1000)
        return age / (topic.kept_hours * HOUR_SECONDS)

    def _report(self, backlog: Backlog) -> None:
        part = f"retention of {backlog.topic}"
        if backlog.retention_used < RETENTION_LIMIT:
            self._faults.clear(part)
            return
        hours = (self._known[backlog.topic].kept_hours or 0) * (1 - backlog.retention_used)
        self._faults.notice(
            part,
            Unavailable(
                Reason.RETENTION_NEAR,
                f"{backlog.topic}: unhandled events expire from {max(hours, 0):.0f} h on. Add replicas of {self._service}, or mend what "
                "holds it up.",
            ),
        )
