"""The order in which a call asks replicas, and when it gives up. Shared by both clients.

`tailor.retry` does not fit here: a failure first moves on to the next replica without a wait, and the asyncio client must not block.
"""

import random
import threading
import time
from collections.abc import Callable

from tailor.errors import DeadlineExceeded, Reason, ResourceExhausted, TailorError, Unavailable

ROUNDS = 5
FIRST_PAUSE_SECONDS = 0.3
LONGEST_PAUSE_SECONDS = 5.0
GROWTH = 2.5
# A replica that did not answer is asked last for this long.
REST_SECONDS = 2.0


class Ring:
    """Replicas by number, in rotation. One that did not answer rests. Thread-safe."""

    def __init__(self, size: int, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._next = random.randrange(size)  # noqa: S311 - spreads callers, no secret
        self._rests_until = [0.0] * size

    def order(self) -> list[int]:
        """List every replica once, the next one of the rotation first, resting ones last."""
        with self._lock:
            size = len(self._rests_until)
            rotation = [(self._next + step) % size for step in range(size)]
            self._next = (self._next + 1) % size
            moment = self._now()
            return sorted(rotation, key=lambda replica: self._rests_until[replica] > moment)

    def rest(self, replica: int) -> None:
        """Let a replica that did not answer rest."""
        with self._lock:
            self._rests_until[replica] = self._now() + REST_SECONDS

    def attempts(self, timeout_seconds: float) -> "Attempts":
        """Begin the attempts of one call."""
        return Attempts(self, self._now, self._now() + timeout_seconds)


class Attempts:
    """One call's attempts: every replica up to ROUNDS times, with growing pauses between rounds, until the deadline."""

    def __init__(self, ring: Ring, now: Callable[[], float], deadline: float) -> None:
        self._ring = ring
        self._now = now
        self._deadline = deadline
        self._left = ring.order()
        self._round = 1
        self.replica = self._left.pop(0)

    def seconds_left(self) -> float:
        """Seconds until the deadline. Raises DeadlineExceeded after it."""
        left = self._deadline - self._now()
        if left <= 0:
            raise DeadlineExceeded(Reason.DEADLINE_EXCEEDED, "The call took longer than its timeout.")
        return left

    def pause_after(self, error: TailorError) -> float:
        """Move on to the next replica and return the seconds to wait before it is asked. Raises the error if the call must give up."""
        if not isinstance(error, Unavailable | ResourceExhausted) or error.reason is Reason.SERVICE_FAILED:
            raise error
        if isinstance(error, Unavailable):
            self._ring.rest(self.replica)
        pause = 0.0
        if not self._left:
            pause = self._between_rounds(error)
            self._left = self._ring.order()
        self.replica = self._left.pop(0)
        return pause

    def _between_rounds(self, error: TailorError) -> float:
        grown = min(FIRST_PAUSE_SECONDS * GROWTH ** (self._round - 1), LONGEST_PAUSE_SECONDS)
        # Never shorter than the server asked for; jitter keeps callers apart.
        pause = max(grown, error.retry_after_seconds or 0.0) * random.uniform(1.0, 1.25)  # noqa: S311
        self._round += 1
        if self._round > ROUNDS or self._now() + pause >= self._deadline:
            raise error
        return pause
