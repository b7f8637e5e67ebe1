"""Drafts and reports as events."""

import threading

from google.protobuf.timestamp_pb2 import Timestamp

from services.inference.adapters.journal import Journal
from services.inference.domain import Draft, ServedReport
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import drafts_pb2, models_pb2
from tailor.errors import Unavailable
from tailor.events.envelope import derive_id, new_id
from tailor.events.producer import Producer
from tailor.logging import get_logger

log = get_logger(__name__)

DRAFTS = "draft.created.v1"
SERVED = "adapter.served.v1"
SEEN = "replica.seen.v1"

BATCH = 100
# Answers go first: one that is on its way to its caller and a draft to the broker would share the interpreter.
PAUSE_SECONDS = 0.05
RETRY_SECONDS = 1.0
# A third of what the registry waits before it takes a replica for gone.
PRESENCE_SECONDS = 10.0


class DraftEvents:
    """States drafts: writes them into the journal, and from there a thread of their own sends them. No answer waits for the broker, and a
    killed process states the rest when it is back."""

    def __init__(self, producer: Producer, journal: Journal, base: str) -> None:
        self._producer = producer
        self._journal = journal
        self._base = base

    def add(self, draft: Draft) -> None:
        """State a draft. Unavailable where it can be neither written down nor sent; ResourceExhausted (TOO_MANY_DRAFTS)."""
        message = to_message(draft, self._base)
        try:
            self._journal.add(message.SerializeToString(deterministic=True))
        except Unavailable as error:
            log.error("draft not written down", draft_id=message.draft_id, reason=error.reason)
            self._send(message)

    def run(self, stop: threading.Event) -> None:
        """Send what is written down until told to stop; what the broker does not take then waits for the next start."""
        while not stop.wait(PAUSE_SECONDS):
            self._relay_all(stop)
        self._relay_all(stop)
        if len(self._journal):
            log.error("drafts not stated", drafts=len(self._journal))
        self._journal.close()

    def _relay_all(self, stop: threading.Event) -> None:
        try:
            while len(self._journal):
                self._relay()
        except Unavailable as error:
            log.warning("drafts wait for the broker", drafts=len(self._journal), reason=error.reason)
            stop.wait(RETRY_SECONDS)

    def _relay(self) -> None:
        for position, value in self._journal.first(BATCH):
            self._send(drafts_pb2.DraftCreated.FromString(value))
            self._journal.remove(position)

    def _send(self, message: drafts_pb2.DraftCreated) -> None:
        event_id = derive_id("evt", DRAFTS, message.draft_id, message.text.sha256)
        self._producer.send(DRAFTS, message.draft_id, message, event_id)


class ServedEvents:
    """States what this replica serves."""

    def __init__(self, producer: Producer, replica: str) -> None:
        self._producer = producer
        self._replica = replica

    def add(self, report: ServedReport) -> None:
        """State a report; Unavailable while the broker is away."""
        served = report.served
        message = models_pb2.AdapterServed(
            specialist=served.specialist,
            generation=served.generation,
            adapter_digest=served.adapter_digest,
            replica=self._replica,
            serving=not report.refusal,
            reason=report.refusal,
            create_time=_now(),
        )
        event_id = derive_id(
            "evt", SERVED, served.specialist, served.generation, served.adapter_digest, self._replica, report.refusal
        )
        self._producer.send(SERVED, served.specialist, message, event_id)


class Presence:
    """States that this replica is ready, again and again, and that it leaves. The registry takes it for gone when it hears nothing."""

    def __init__(self, producer: Producer, replica: str, base: str) -> None:
        self._producer = producer
        self._replica = replica
        self._base = base

    def run(self, stop: threading.Event) -> None:
        """State presence until told to stop; what a lost broker does not take is overtaken by the next statement."""
        while not stop.is_set():
            self._state(leaving=False)
            stop.wait(PRESENCE_SECONDS)
        self._state(leaving=True)

    def _state(self, *, leaving: bool) -> None:
        message = models_pb2.ReplicaSeen(replica=self._replica, base=self._base, leaving=leaving, create_time=_now())
        try:
            self._producer.send(SEEN, self._replica, message, new_id("evt"))
        except Unavailable as error:
            log.warning("presence not stated", reason=error.reason)


def to_message(draft: Draft, base: str) -> drafts_pb2.DraftCreated:
    """A draft as its event."""
    message = drafts_pb2.DraftCreated(
        draft_id=draft.draft_id,
        specialist=draft.served.specialist,
        generation=draft.served.generation,
        adapter_digest=draft.served.adapter_digest,
        dataset_digest=draft.served.dataset_digest,
        base=base,
        prompt_digest=draft.prompt_digest,
        answer_digest=draft.answer_digest,
        prompt_tokens=draft.prompt_tokens,
        completion_tokens=draft.completion_tokens,
        finish_reason=draft.finish_reason,
        first_token_seconds=draft.first_token_seconds,
        seconds=draft.seconds,
        key_id=draft.key_id,
        canary=draft.served.is_canary,
    )
    message.create_time.FromMilliseconds(round(draft.moment * 1000))
    if draft.text is not None:
        text = draft.text
        message.text.CopyFrom(common_pb2.ObjectRef(uri=text.uri, sha256=text.sha256, size_bytes=text.size_bytes))
    return message


def _now() -> Timestamp:
    moment = Timestamp()
    moment.GetCurrentTime()
    return moment
