"""How many answers are generated at once, and how many calls may wait for that."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tailor.errors import Aborted, Reason, ResourceExhausted
from tailor.telemetry import ANSWERS_RUNNING, ANSWERS_WAITING

WAKE_SECONDS = 0.25
SECONDS_PER_PLACE = 0.5


@dataclass(eq=False)
class Ticket:
    """A call that wants a place."""

    caller: str


class Admission:
    """Places for concurrent answers, given in the order of arrival. Thread-safe.

    A caller has at most three quarters of the running places, and of the waiting ones, so that there is always one for another caller.
    """

    def __init__(self, max_concurrent: int, max_queued: int) -> None:
        self._max_concurrent = max_concurrent
        self._max_queued = max_queued
        self._condition = threading.Condition()
        self._running = Counter[str]()
        self._queue: list[Ticket] = []

    @contextmanager
    def place(self, caller: str, cancelled: Callable[[], bool]) -> Iterator[None]:
        """Hold a place; blocks until one is free. `caller` is the same for all calls of a key, at all doors.

        Raises ResourceExhausted with a retry time if the queue is full, Aborted if the call is cancelled while it waits.
        """
        self._enter(Ticket(caller), cancelled)
        try:
            yield
        finally:
            with self._condition:
                self._running -= Counter((caller,))
                self._count()
                self._condition.notify_all()

    def _enter(self, ticket: Ticket, cancelled: Callable[[], bool]) -> None:
        with self._condition:
            if not self._queue and self._has_place(ticket):
                self._running[ticket.caller] += 1
                self._count()
                return
            waiting = sum(other.caller == ticket.caller for other in self._queue)
            if len(self._queue) >= self._max_queued or waiting >= _share(self._max_queued):
                wait = max(1.0, SECONDS_PER_PLACE * len(self._queue))
                raise ResourceExhausted(
                    Reason.QUEUE_FULL, "Too many calls are waiting. Retry.", retry_after_seconds=wait
                )
            self._queue.append(ticket)
            self._count()
            try:
                while self._next() is not ticket:
                    self._condition.wait(WAKE_SECONDS)
                    if cancelled():
                        raise caller_gone()
                self._running[ticket.caller] += 1
            finally:
                self._queue.remove(ticket)
                self._count()
                self._condition.notify_all()

    def _next(self) -> Ticket | None:
        """The first in the queue whose caller may have another place; None if there is no place."""
        return next(filter(self._has_place, self._queue), None)

    def _has_place(self, ticket: Ticket) -> bool:
        of_caller = self._running[ticket.caller]
        return self._running.total() < self._max_concurrent and of_caller < _share(self._max_concurrent)

    def _count(self) -> None:
        ANSWERS_RUNNING.set(self._running.total())
        ANSWERS_WAITING.set(len(self._queue))


def _share(places: int) -> int:
    """The places that one caller may have: three quarters, and at least one."""
    return max(1, places * 3 // 4)


def caller_gone() -> Aborted:
    return Aborted(Reason.CANCELLED, "The caller went away before the answer began.")
