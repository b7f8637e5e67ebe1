"""The demo's documents: published, and followed by the events that say where each one is."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from tailor.api.events.v1 import documents_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.cli.calls import unary
from tailor.cli.connections import Connections
from tailor.cli.demo_wait import Tell, patiently, until
from tailor.cli.events import message_type
from tailor.cli.publish import publish_all
from tailor.cli.submissions import Submission
from tailor.events.topics import load_topics

INGESTED = "document.ingested.v1"
ANONYMIZED = "document.anonymized.v1"
REJECTED = "document.rejected.v1"
TOPICS = (INGESTED, ANONYMIZED, REJECTED)

QUIET_SECONDS = 2.0
AGREE_SECONDS = 90.0

Poll = Callable[[], Sequence[Any]]


class Tally:
    """Where submissions are. Events come at least once; each submission counts once."""

    def __init__(self) -> None:
        topics = load_topics()
        self._types = {name: message_type(topics[name].schema) for name in TOPICS}
        self._ingested: set[str] = set()
        self._anonymized: dict[str, dict[str, int]] = {}
        self._rejected: dict[str, str] = {}

    def add(self, topic: str, value: bytes) -> None:
        """Count one event."""
        message: Any = self._types[topic].FromString(value)
        if topic == INGESTED:
            self._ingested.add(message.submission_id)
        elif topic == ANONYMIZED:
            self._anonymized[message.submission_id] = dict(message.findings)
        else:
            reason = documents_pb2.RejectionReason.Name(message.reason).removeprefix("REJECTION_REASON_")
            self._rejected[message.submission_id] = reason

    @property
    def anonymized(self) -> int:
        """Submissions that passed the barrier."""
        return len(self._anonymized)

    @property
    def accounted(self) -> int:
        """Submissions whose end is known."""
        return len(self._anonymized.keys() | self._rejected.keys())

    @property
    def rejected(self) -> dict[str, int]:
        """Rejections by reason."""
        return dict(Counter(self._rejected.values()).most_common())

    @property
    def findings(self) -> dict[str, int]:
        """Personal values found, by type."""
        total: Counter[str] = Counter()
        for found in self._anonymized.values():
            total.update(found)
        return dict(total.most_common())

    def describe(self, published: int) -> str:
        """Everything in one line."""
        text = f"{published} published, {len(self._ingested)} ingested, {self.anonymized} anonymised"
        for label, counts in (("rejected", self.rejected), ("found", self.findings)):
            if counts:
                text += f"; {label} " + ", ".join(f"{name} {count}" for name, count in counts.items())
        return text


def wait_for_quiet(poll: Poll, tell: Tell) -> None:
    """Let documents of an earlier time pass first, so that only ours are counted."""
    last = time.monotonic()
    while time.monotonic() - last < QUIET_SECONDS:
        if patiently(poll, tell):
            tell("lets earlier documents pass")
            last = time.monotonic()


def publish_and_follow(
    connections: Connections, submissions: Sequence[Submission], poll: Poll, tell: Tell
) -> tuple[int, Tally]:
    """Publish, and wait until every document is anonymised or rejected, by the events and by the registry; the number published.

    `poll` reads the three topics from their ends as they were before. DeadlineExceeded where a document stays unaccounted for.
    """
    since = Timestamp()
    since.GetCurrentTime()
    tally = Tally()
    published = publish_all(connections, submissions, lambda count: tell(f"{count} published")).total

    def count() -> tuple[Tally | None, str]:
        for record in poll():
            tally.add(record.topic, record.value)
        return (tally if tally.accounted >= published else None), tally.describe(published)

    until(count, tell, poll_seconds=0.0)
    tell(tally.describe(published))
    _agree(connections, since, tally, tell)
    tell(tally.describe(published))
    return published, tally


def _agree(connections: Connections, since: Timestamp, tally: Tally, tell: Tell) -> None:
    def check() -> tuple[bool | None, str]:
        flow = unary("registry", connections.registry.GetFlow, registry_pb2.GetFlowRequest(since=since))
        same = flow.anonymized == tally.anonymized and dict(flow.rejected) == tally.rejected
        text = f"the registry counts {flow.anonymized} anonymised and {sum(flow.rejected.values())} rejected"
        return (same or None), f"{text}, the events {tally.anonymized} and {sum(tally.rejected.values())}"

    until(check, tell, stalled_seconds=AGREE_SECONDS)
