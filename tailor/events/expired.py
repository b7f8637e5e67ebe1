"""Events that expired before their consumer read them. Kafka skips them without a word; here they are counted and published.

A gap is the range between the position of the group and the oldest event that a partition still has. Offsets that are missing between two
events, as in a compacted topic or one with transactions, do not count.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tailor import wire
from tailor.api.events.v1 import documents_pb2, drafts_pb2
from tailor.errors import FailedPrecondition, Reason
from tailor.events.envelope import derive_id
from tailor.events.faults import Faults
from tailor.events.offsets import find_starts
from tailor.events.producer import Producer
from tailor.logging import get_logger
from tailor.telemetry import EVENTS_EXPIRED

log = get_logger(__name__)

REJECTED = "document.rejected.v1"
DEAD_LETTERS = "event.dead_lettered.v1"


@dataclass(frozen=True)
class Gap:
    """The offsets [first, end) of a partition, which expired."""

    topic: str
    partition: int
    first: int
    end: int

    @property
    def count(self) -> int:
        """The number of offsets."""
        return self.end - self.first


PublishGap = Callable[[Gap], None]


class GapFinder:
    """Compares positions with what the partitions still have. For one consumer's thread. `prefix` is that of the topics' names."""

    def __init__(self, publish: PublishGap, prefix: str = "", faults: Faults | None = None) -> None:
        self._publish = publish
        self._prefix = prefix
        self._faults = faults or Faults()
        self._positions: dict[Any, int] = {}

    def reset(self) -> None:
        """Forget everything, for a new client."""
        self._positions.clear()

    def forget(self, partitions: Iterable[Any]) -> None:
        """Forget partitions that moved away: another member moves their positions now."""
        for partition in partitions:
            self._positions.pop(partition, None)

    def advance(self, partition: Any, position: int) -> None:
        """Note that everything before `position` was handled."""
        self._positions[partition] = position

    def follow(self, client: Any, assignment: Iterable[Any], batches: Mapping[Any, Sequence[Any]]) -> Mapping[Any, int]:
        """Look for gaps in partitions that are new to this member, and before a batch that does not follow on what was handled.

        Returns positions that the caller commits: those after a gap, and the first ones of partitions that had none. Without the latter,
        events that expire before the first one was handled could not be counted.
        """
        new = [partition for partition in assignment if partition not in self._positions]
        jumped = [
            partition
            for partition, records in batches.items()
            if records[0].offset > self._positions.get(partition, records[0].offset)
        ]
        if not new and not jumped:
            return {}
        starts = find_starts(client, new + jumped)
        unknown = {}
        for partition in new:
            position = client.committed(partition)
            if position is None:
                self._notice(partition, starts[partition])
                unknown[partition] = position = starts[partition]
            self._positions[partition] = int(position)
        return unknown | dict(self._find(starts))

    def _notice(self, partition: Any, start: int) -> None:
        if start > 0:
            self._faults.notice(
                f"position in {partition.topic}, partition {partition.partition}",
                FailedPrecondition(
                    Reason.POSITION_UNKNOWN,
                    f"{start} events of {partition.topic}, partition {partition.partition}, have expired, and the broker does not know "
                    "which of them were handled. If the service is new, nothing is missing. If it was away for longer than the broker's "
                    "`offsets.retention.minutes`, publish the documents of that time again, and raise that setting.",
                ),
            )

    def _find(self, starts: Mapping[Any, int]) -> Mapping[Any, int]:
        gaps = {}
        for partition, start in starts.items():
            position = self._positions[partition]
            if start > position:
                gap = Gap(partition.topic.removeprefix(self._prefix), partition.partition, position, start)
                log.error("events expired", topic=gap.topic, partition=gap.partition, first=gap.first, count=gap.count)
                EVENTS_EXPIRED.labels(gap.topic).inc(gap.count)
                self._publish(gap)
                self._positions[partition] = gaps[partition] = start
        return gaps


def dead_letter_gap(producer: Producer, service: str) -> PublishGap:
    """Publish a gap as one dead letter with a count. Idempotent."""

    def publish(gap: Gap) -> None:
        letter = drafts_pb2.EventDeadLettered(
            topic=gap.topic,
            partition=gap.partition,
            offset=gap.first,
            consumer=service,
            reason=Reason.EVENT_EXPIRED,
            create_time=wire.now(),
            count=gap.count,
        )
        event_id = derive_id("ded", service, gap.topic, gap.partition, gap.first, gap.end)
        producer.send(DEAD_LETTERS, gap.topic, letter, event_id)

    return publish


def reject_gap(
    producer: Producer, service: str, stage: "documents_pb2.Stage.ValueType", topics: Iterable[str]
) -> PublishGap:
    """Publish a gap in topics of documents as a rejection that stands for all of them, and any other gap as a dead letter. Idempotent."""
    document_topics, dead_letter = frozenset(topics), dead_letter_gap(producer, service)

    def publish(gap: Gap) -> None:
        if gap.topic not in document_topics:
            dead_letter(gap)
            return
        parts = ("expired", service, gap.topic, gap.partition, gap.first, gap.end)
        document_id = derive_id("doc", *parts)
        rejection = documents_pb2.DocumentRejected(
            document_id=document_id,
            submission_id=derive_id("sub", *parts),
            stage=stage,
            reason=documents_pb2.REJECTION_REASON_EXPIRED,
            hint=(
                f"{gap.count} events of {gap.topic}, partition {gap.partition}, offsets {gap.first} to {gap.end - 1}, expired before "
                f"{service} read them. Publish these documents again."
            ),
            create_time=wire.now(),
            expired=documents_pb2.ExpiredEvents(
                topic=gap.topic, partition=gap.partition, first_offset=gap.first, count=gap.count
            ),
        )
        producer.send(REJECTED, document_id, rejection, derive_id("evt", REJECTED, *parts))

    return publish
