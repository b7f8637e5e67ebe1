"""How many answers are generated at once, and how many calls may wait for that."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tailor.errors import Aborted, Reason, ResourceExhausted
from tailor.telemetry import ANSWERS_RUNNING, ANSWERS_WAITING

WAKE_SECONDS = 0.25
SECONDS_PER_PLACE = 0.5


class Admission:
    """Places for concurrent answers, given in the order of arrival. Thread-safe."""

    def __init__(self, max_concurrent: int, max_queued: int) -> None:
        self._max_concurrent = max_concurrent
        self._max_queued = max_queued
        self._condition = threading.Condition()
        self._running = 0
        self._queue: list[object] = []

    @contextmanager
    def place(self, cancelled: Callable[[], bool]) -> Iterator[None]:
        """Hold a place; blocks until one is free.

        Raises ResourceExhausted with a retry time if the queue is full, Aborted if the call is cancelled while it waits.
        """
        self._enter(cancelled)
        try:
            yield
        finally:
            with self._condition:
                self._running -= 1
                self._count()
                self._condition.notify_all()

    def _enter(self, cancelled: Callable[[], bool]) -> None:
        ticket = object()
        with self._condition:
            if self._running < self._max_concurrent and not self._queue:
                self._running += 1
                self._count()
                return
            if len(self._queue) >= self._max_queued:
                wait = max(1.0, SECONDS_PER_PLACE * len(self._queue))
                raise ResourceExhausted(
                    Reason.QUEUE_FULL, "Too many calls are waiting. Retry.", retry_after_seconds=wait
                )
            self._queue.append(ticket)
            self._count()
            try:
                while self._queue[0] is not ticket or self._running >= self._max_concurrent:
                    self._condition.wait(WAKE_SECONDS)
                    if cancelled():
                        raise caller_gone()
                self._running += 1
            finally:
                self._queue.remove(ticket)
                self._count()
                self._condition.notify_all()

    def _count(self) -> None:
        ANSWERS_RUNNING.set(self._running)
        ANSWERS_WAITING.set(len(self._queue))


def caller_gone() -> Aborted:
    return Aborted(Reason.CANCELLED, "The caller went away before the answer began.")
