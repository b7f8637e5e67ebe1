"""Rate limits: a token bucket per API key, in this process only."""

import threading
import time
from collections.abc import Callable

from tailor.errors import Reason, ResourceExhausted

MAX_BUCKETS = 10_000


class RateLimiter:
    """Token buckets that hold the calls of one minute and refill evenly. Thread-safe."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, key_id: str, calls_per_minute: int) -> None:
        """Count a call. Raises ResourceExhausted with the time until the next call is admitted. A limit of 0 means unlimited."""
        if not calls_per_minute:
            return
        per_second = calls_per_minute / 60
        with self._lock:
            now = self._now()
            if key_id not in self._buckets and len(self._buckets) >= MAX_BUCKETS:
                self._buckets.clear()
            left, since = self._buckets.get(key_id, (float(calls_per_minute), now))
            left = min(float(calls_per_minute), left + (now - since) * per_second)
            admitted = left >= 1
            self._buckets[key_id] = (left - 1 if admitted else left, now)
        if not admitted:
            raise ResourceExhausted(
                Reason.RATE_EXCEEDED,
                f"This key may call {calls_per_minute} times per minute.",
                retry_after_seconds=(1 - left) / per_second,
            )
