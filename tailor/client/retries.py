"""Which replica a call asks next, and when it gives up: the same for both clients."""

import random
import threading
import time
from collections.abc import Callable

from tailor.errors import DeadlineExceeded, Reason, ResourceExhausted, TailorError, Unavailable

ROUNDS = 5
FIRST_PAUSE_SECONDS = 0.3
LONGEST_PAUSE_SECONDS = 5.0
GROWTH = 2.5
# A replica that did not answer is asked last for so long.
REST_SECONDS = 2.0
# What `tailor.rpc.status` calls an answer that no retry mends.
BROKEN = "SERVICE_FAILED"


class Ring:
    """Replicas by number, asked in turns; one that did not answer rests. Thread-safe."""

    def __init__(self, size: int, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._next = random.randrange(size)  # noqa: S311 - spreads callers, no secret
        self._rests_until = [0.0] * size

    def order(self) -> list[int]:
        """Every replica once, the next in turn first, those at rest last."""
        with self._lock:
            size = len(self._rests_until)
            turn = [(self._next + step) % size for step in range(size)]
            self._next = (self._next + 1) % size
            moment = self._now()
            return sorted(turn, key=lambda replica: self._rests_until[replica] > moment)

    def rest(self, replica: int) -> None:
        """The replica did not answer."""
        with self._lock:
            self._rests_until[replica] = self._now() + REST_SECONDS

    def attempts(self, timeout_seconds: float) -> "Attempts":
        """The attempts of one call."""
        return Attempts(self, self._now, self._now() + timeout_seconds)


class Attempts:
    """One call's attempts: ROUNDS times every replica, with growing pauses between the rounds, until the deadline."""

    def __init__(self, ring: Ring, now: Callable[[], float], deadline: float) -> None:
        self._ring = ring
        self._now = now
        self._deadline = deadline
        self._left = ring.order()
        self._round = 1
        self.replica = self._left.pop(0)

    def seconds_left(self) -> float:
        """Until the deadline; DeadlineExceeded behind it."""
        left = self._deadline - self._now()
        if left <= 0:
            raise DeadlineExceeded(Reason.DEADLINE_EXCEEDED, "The time for the call is over.")
        return left

    def pause_after(self, error: TailorError) -> float:
        """Turn to the next replica; seconds to wait before it is asked. The error itself where the call has to give up."""
        if not isinstance(error, Unavailable | ResourceExhausted) or error.reason == BROKEN:
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
        # Never before the time that the server named; the jitter keeps callers apart.
        pause = max(grown, error.retry_after_seconds or 0.0) * random.uniform(1.0, 1.25)  # noqa: S311
        self._round += 1
        if self._round > ROUNDS or self._now() + pause >= self._deadline:
            raise error
        return pause
