"""Erased and superseded documents. Each replica knows them all before it handles anything, and each service confirms that it forgot them.

`document.erased.v1` is read twice: as a table by every replica, to know what is erased (`ErasedDocuments`), and by one member of the
consumer group, to forget the document and to answer with `document.forgotten.v1` (`forgetting`).
"""

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tailor import wire
from tailor.api.events.v1 import documents_pb2
from tailor.errors import InvalidArgument, Reason
from tailor.events.consumer import Handler
from tailor.events.envelope import Event, decode, derive_id
from tailor.events.producer import Producer

ERASED = "document.erased.v1"
# How long a service waits for a lift that another one may know of already: longer than an idle reader sleeps.
LIFT_SECONDS = 3.0
CONFIRMED_SECONDS = 60.0
FORGOTTEN = "document.forgotten.v1"
# An id that is empty, or has a slash, would be the beginning of the names of other documents' objects.
ID = re.compile(r"[a-z]{3}_\w{1,64}")


@dataclass(frozen=True)
class Erased:
    """A document to forget, and the digests of what was derived from it. The weights of `retired` adapters are deleted.

    A superseded document stays: only what was derived from versions before `sequence` is forgotten.
    """

    document_id: str
    erasure_id: str
    datasets: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    retired: tuple[str, ...] = ()
    sequence: int = 0


@dataclass(frozen=True)
class Forgotten:
    """Numbers of removed things by their name, and digests of superseded datasets."""

    counts: Mapping[str, int] = field(default_factory=dict)
    datasets: tuple[str, ...] = ()


Forget = Callable[[Erased], Forgotten]
# Returns None if the service confirms later, with `confirm_forgotten`.
Supersede = Callable[[Erased], Forgotten | None]


class ErasedDocuments:
    """The ids of erased documents. Thread-safe for one thread that applies and any number that ask.

    A document that is published again after its erasure was lifted may arrive before the lift does: another service learned of it earlier.
    So asking for an erased document waits up to `patience_seconds` for a lift, unless a recent question has waited already.
    """

    def __init__(self, patience_seconds: float = 0.0) -> None:
        self._patience_seconds = patience_seconds
        self._erasures: dict[str, str] = {}
        self._waited_at: dict[str, float] = {}
        self._changed = threading.Condition()

    def __contains__(self, document_id: object) -> bool:
        with self._changed:
            if document_id not in self._erasures:
                return False
            now = time.monotonic()
            if now - self._waited_at.get(str(document_id), -CONFIRMED_SECONDS) < CONFIRMED_SECONDS:
                return True
            lifted = self._changed.wait_for(lambda: document_id not in self._erasures, self._patience_seconds)
            if not lifted:
                self._waited_at[str(document_id)] = now
            return not lifted

    def apply(self, event: Event) -> None:
        """Add an erased document, or remove one whose erasure was lifted. A superseded document is not erased.

        Raises InvalidArgument (INCOMPLETE_EVENT) for an impossible id.
        """
        message = _decode(event)
        with self._changed:
            self._waited_at.pop(message.document_id, None)
            if message.lifted or message.HasField("superseded_by"):
                self._erasures.pop(message.document_id, None)
            else:
                self._erasures[message.document_id] = message.erasure_id
            self._changed.notify_all()


def forgetting(
    service: str,
    forget: Forget,
    producer: Producer,
    lift: Callable[[str], None] | None = None,
    supersede: Supersede | None = None,
) -> Handler:
    """Make the handler that forgets a document and confirms it, even if the service held nothing of it. Idempotent.

    `lift` receives the id of a document whose erasure was lifted. `supersede` forgets what was derived from earlier versions of a
    document that stays; without it, the service derives nothing and confirms at once. The handler raises InvalidArgument (INCOMPLETE_EVENT)
    for an impossible id, and nothing is deleted.
    """

    def handle(event: Event) -> None:
        message = _decode(event)
        if message.lifted:
            if lift is not None:
                lift(message.document_id)
            return
        erased = Erased(
            message.document_id,
            message.erasure_id,
            tuple(message.dataset_digests),
            tuple(message.adapter_digests),
            tuple(message.retired_adapter_digests),
            message.superseded_by.sequence,
        )
        act = (supersede or _derives_nothing) if message.HasField("superseded_by") else forget
        forgotten = act(erased)
        if forgotten is not None:
            confirm_forgotten(service, producer, erased, forgotten)

    return handle


def confirm_forgotten(service: str, producer: Producer, erased: Erased, forgotten: Forgotten) -> None:
    """Publish that a service has forgotten a document. Blocks until the broker has it. A repeated call publishes the same event."""
    answer = to_message(service, erased, forgotten)
    event_id = derive_id("evt", FORGOTTEN, service, erased.erasure_id, erased.document_id)
    producer.send(FORGOTTEN, erased.document_id, answer, event_id)


def _decode(event: Event) -> documents_pb2.DocumentErased:
    message = decode(event, documents_pb2.DocumentErased)
    wrong = [name for name in ("document_id", "erasure_id") if not ID.fullmatch(getattr(message, name))]
    if wrong:
        raise InvalidArgument(Reason.INCOMPLETE_EVENT, f"DocumentErased needs a valid {' and '.join(wrong)}.")
    return message


def _derives_nothing(_: Erased) -> Forgotten:
    return Forgotten()


def to_message(service: str, erased: Erased, forgotten: Forgotten) -> documents_pb2.DocumentForgotten:
    return documents_pb2.DocumentForgotten(
        erasure_id=erased.erasure_id,
        document_id=erased.document_id,
        service=service,
        counts={name: count for name, count in forgotten.counts.items() if count},
        dataset_digests=forgotten.datasets,
        create_time=wire.now(),
    )
