"""Drafts and reports as events."""

import queue
import threading

from google.protobuf.timestamp_pb2 import Timestamp

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

MAX_WAITING = 10_000
PATIENCE_SECONDS = 1.0
RETRY_SECONDS = 1.0
# A third of what the registry waits before it takes a replica for gone.
PRESENCE_SECONDS = 10.0


class DraftEvents:
    """States drafts in a thread of its own, so that a lost broker costs an answer a moment and never the answer."""

    def __init__(self, producer: Producer, base: str) -> None:
        self._producer = producer
        self._base = base
        self._waiting: queue.Queue[tuple[drafts_pb2.DraftCreated, threading.Event]] = queue.Queue(MAX_WAITING)

    def add(self, draft: Draft) -> None:
        """State a draft and wait for the broker, a second at most; Unavailable where too many wait already."""
        stated = threading.Event()
        alone = self._waiting.empty()
        try:
            self._waiting.put_nowait((to_message(draft, self._base), stated))
        except queue.Full:
            raise Unavailable("TOO_MANY_DRAFTS", "The broker has been away for too long.") from None
        if alone:
            stated.wait(PATIENCE_SECONDS)

    def run(self, stop: threading.Event) -> None:
        """Send what is added until told to stop and nothing is left."""
        while not (stop.is_set() and self._waiting.empty()):
            try:
                message, stated = self._waiting.get(timeout=0.2)
            except queue.Empty:
                continue
            while not self._sent(message):
                if stop.wait(RETRY_SECONDS):
                    log.error("draft not stated", draft_id=message.draft_id)
                    break
            stated.set()

    def _sent(self, message: drafts_pb2.DraftCreated) -> bool:
        try:
            event_id = derive_id("evt", DRAFTS, message.draft_id, message.text.sha256)
            self._producer.send(DRAFTS, message.draft_id, message, event_id)
        except Unavailable as error:
            log.warning("draft waits for the broker", reason=error.reason)
            return False
        return True


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
