"""How many calls may be open at once, by who holds them."""

import threading
from collections import Counter

from tailor.errors import Reason, ResourceExhausted

RETRY_SECONDS = 1.0


class Places:
    """Counts open calls by holder, such as a key or a connection. Thread-safe."""

    def __init__(self, per_holder: int, total: int) -> None:
        self._per_holder = per_holder
        self._total = total
        self._open: Counter[str] = Counter()
        self._count = 0
        self._lock = threading.Lock()

    def take(self, holder: str) -> None:
        """Count one more call. Raises ResourceExhausted (TOO_MANY_CALLS) if the holder, or all together, have too many open."""
        with self._lock:
            if self._open[holder] < self._per_holder and self._count < self._total:
                self._open[holder] += 1
                self._count += 1
                return
            if not self._open[holder]:
                del self._open[holder]
        raise ResourceExhausted(
            Reason.TOO_MANY_CALLS,
            f"At most {self._per_holder} calls may be open at once. Wait for the answers of some.",
            retry_after_seconds=RETRY_SECONDS,
        )

    def free(self, holder: str) -> None:
        """Give back what `take` counted."""
        with self._lock:
            self._count -= 1
            self._open[holder] -= 1
            if not self._open[holder]:
                del self._open[holder]
