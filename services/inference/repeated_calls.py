"""Answers for calls that are repeated under one id, so that a retry makes no second draft. They are in this replica's memory only."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from services.inference.admission import WAKE_SECONDS, caller_gone
from services.inference.domain import AnswerPiece, ServedModel, TokenLogProbability
from tailor.errors import FailedPrecondition, Reason

KEPT_SECONDS = 300.0
SWEEP_SECONDS = 5.0
# Of all answers together. The oldest are dropped beyond that.
MAX_BYTES = 64 * 1024 * 1024
# Estimates of the memory of an answer and of a log-probability, besides their text.
ANSWER_BYTES, TOKEN_BYTES = 1024, 256


@dataclass(frozen=True)
class WholeAnswer:
    """An answer that was generated to its end. Iterating over it gives the whole text in one piece."""

    draft_id: str
    served: ServedModel
    text: str = field(repr=False)
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    moment: float
    log_probabilities: tuple[TokenLogProbability, ...] = field(default=(), repr=False)
    thought: str = field(default="", repr=False)

    @property
    def size_bytes(self) -> int:
        """An estimate of what it takes in memory."""
        tokens = sum(1 + len(token.top) for token in self.log_probabilities)
        return ANSWER_BYTES + len(self.text.encode()) + len(self.thought.encode()) + tokens * TOKEN_BYTES

    def __iter__(self) -> Iterator[AnswerPiece]:
        yield AnswerPiece(
            self.text, self.completion_tokens, self.finish_reason, self.log_probabilities, thought=self.thought
        )

    def close(self) -> None:
        """Has no effect: the answer holds no resources."""


@dataclass(frozen=True)
class CallId:
    """Whose call it is, the id that the caller gave it, and a digest of its request."""

    holder: str
    request_id: str
    digest: str

    @property
    def key(self) -> tuple[str, str]:
        """The part that a repeated call has in common with the first."""
        return self.holder, self.request_id


@dataclass(frozen=True)
class _Kept:
    call: CallId
    answer: WholeAnswer
    expires_at: float


@dataclass(frozen=True)
class _Running:
    call: CallId
    ended: threading.Event = field(default_factory=threading.Event)


class RepeatedCalls:
    """The answers of calls with an id, for KEPT_SECONDS after their end and up to MAX_BYTES. Thread-safe."""

    def __init__(self, now: Callable[[], float] = time.monotonic, max_bytes: int = MAX_BYTES) -> None:
        self._now = now
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._running: dict[tuple[str, str], _Running] = {}
        # Oldest first.
        self._kept: dict[tuple[str, str], _Kept] = {}
        self._bytes = 0

    def begin(self, call: CallId, cancelled: Callable[[], bool]) -> WholeAnswer | None:
        """The answer of an earlier call with this id; None if this one is the first and must `end`. Blocks while an earlier one runs.

        If that fails or is cancelled, a waiting call takes its place. Raises FailedPrecondition (REQUEST_ID_REUSED) if the id came with
        another request, Aborted if this call is cancelled while it waits.
        """
        while True:
            with self._lock:
                self._drop_expired()
                earlier = self._kept.get(call.key) or self._running.get(call.key)
                if earlier is None:
                    self._running[call.key] = _Running(call)
                    return None
            if earlier.call.digest != call.digest:
                raise FailedPrecondition(
                    Reason.REQUEST_ID_REUSED,
                    "This request id came with another request in the last five minutes. Send a new id with a new request.",
                    field_violations={"request_id": "was used for another request"},
                )
            if isinstance(earlier, _Kept):
                return earlier.answer
            while not earlier.ended.wait(WAKE_SECONDS):
                if cancelled():
                    raise caller_gone()

    def end(self, call: CallId, answer: WholeAnswer | None) -> None:
        """Keep the answer of a first call, or None if it has no whole one, and wake the calls that wait for it."""
        with self._lock:
            running = self._running.pop(call.key)
            if answer is not None:
                self._kept[call.key] = _Kept(call, answer, self._now() + KEPT_SECONDS)
                self._bytes += answer.size_bytes
            while self._bytes > self._max_bytes:
                self._drop(next(iter(self._kept)))
        running.ended.set()

    def drop_expired(self) -> None:
        """Drop expired answers, also while nobody calls."""
        with self._lock:
            self._drop_expired()

    def _drop_expired(self) -> None:
        now = self._now()
        for key in [key for key, kept in self._kept.items() if kept.expires_at <= now]:
            self._drop(key)

    def _drop(self, key: tuple[str, str]) -> None:
        self._bytes -= self._kept.pop(key).answer.size_bytes
