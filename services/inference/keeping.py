"""Texts of drafts, for specialists that keep them: through the barrier first, in a thread of its own, bounded in memory and in time."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from services.inference.domain import CANCELLED, FAILED, Draft, Drafts, Said, Turn
from tailor.errors import Reason, TailorError
from tailor.logging import get_logger
from tailor.storage.ref import Ref

log = get_logger(__name__)

# What waits for the barrier is as it was written: little of it, and not for long.
MAX_CHARACTERS = 8_000_000
MAX_AGE_SECONDS = 60.0
ATTEMPTS = 4

Labels = tuple[str, str, str]


class Barrier(Protocol):
    """Anonymization, as far as inference needs it."""

    def anonymize(self, texts: Sequence[str], labels: Labels) -> tuple[str, ...]:
        """The texts without personal values, together: a value found in one is replaced in all. Unavailable while it does not answer."""
        ...


class Bucket(Protocol):
    """Where kept texts are."""

    def put(self, said: Said) -> Ref:
        """Store an anonymised text."""
        ...


class Keeping:
    """The specialists that keep the texts of their drafts, with the labels that the barrier goes by. Thread-safe."""

    def __init__(self) -> None:
        self._labels: dict[str, Labels] = {}

    def begin(self, specialist: str, labels: Labels) -> None:
        """From now on its drafts' texts are kept."""
        self._labels[specialist] = labels

    def end(self, specialist: str) -> None:
        """From now on they are not."""
        self._labels.pop(specialist, None)

    def labels(self, specialist: str) -> Labels | None:
        """Source, department and confidentiality of what the specialist writes; None where it keeps nothing."""
        return self._labels.get(specialist)


class Keeper:
    """Satisfies `domain.Texts`. A draft is stated before its text comes here, and once more when the text is kept; a text that does not
    pass the barrier in time is dropped."""

    def __init__(
        self,
        keeping: Keeping,
        barrier: Barrier,
        bucket: Bucket,
        drafts: Drafts,
        *,
        first_pause_seconds: float = 1.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keeping = keeping
        self._barrier = barrier
        self._bucket = bucket
        self._drafts = drafts
        self._first_pause_seconds = first_pause_seconds
        self._now = now
        self._waiting: deque[tuple[float, Draft, Said]] = deque()
        self._characters = 0
        self._changed = threading.Condition()

    def keep(self, draft: Draft, said: Said) -> None:
        """Take a text in; it returns at once. Nothing is taken of a cancelled, failed or empty answer, or where too much waits already."""
        if draft.finish_reason in (CANCELLED, FAILED) or not said.answer.strip():
            return
        if self._keeping.labels(draft.served.specialist) is None:
            return
        with self._changed:
            if self._characters + said.characters > MAX_CHARACTERS:
                log.warning("text of a draft not kept", draft_id=draft.draft_id, reason=Reason.TOO_MUCH_WAITS)
                return
            self._characters += said.characters
            self._waiting.append((self._now(), draft, said))
            self._changed.notify()

    def run(self, stop: threading.Event) -> None:
        """Take what waits through the barrier until told to stop; what then still waits is dropped."""
        while not stop.is_set():
            with self._changed:
                if not self._waiting and not self._changed.wait(0.2):
                    continue
                taken, draft, said = self._waiting.popleft()
                self._characters -= said.characters
            reason = self._pass(taken + MAX_AGE_SECONDS, draft, said, stop)
            if reason:
                log.warning("text of a draft not kept", draft_id=draft.draft_id, reason=reason)

    def _pass(self, deadline: float, draft: Draft, said: Said, stop: threading.Event) -> str:
        """Keep one text; why not, where it could not be."""
        reason = Reason.TOO_OLD
        for attempt in range(ATTEMPTS):
            labels = self._keeping.labels(draft.served.specialist)
            if labels is None:
                return Reason.NO_LONGER_KEPT
            if self._now() > deadline:
                return reason
            try:
                self._drafts.add(replace(draft, text=self._bucket.put(self._clean(said, labels))))
                return ""
            except TailorError as error:
                reason = error.reason
                if not error.retryable or stop.wait(self._first_pause_seconds * 2**attempt):
                    return reason
        return reason

    def _clean(self, said: Said, labels: Labels) -> Said:
        *turns, answer = self._barrier.anonymize([*(turn.content for turn in said.turns), said.answer], labels)
        roles = (turn.role for turn in said.turns)
        return Said(tuple(Turn(role, text) for role, text in zip(roles, turns, strict=True)), answer)
