"""How many calls may be open at once, by who holds them."""

import threading

from tailor.errors import Reason, ResourceExhausted

RETRY_SECONDS = 1.0


class ConcurrencyLimiter:
    """Counts open calls by holder, such as a key or a connection. Thread-safe."""

    def __init__(self, per_holder: int, total: int) -> None:
        self._per_holder = per_holder
        self._total = total
        self._open: dict[str, int] = {}
        self._count = 0
        self._lock = threading.Lock()

    def take(self, holder: str) -> None:
        """Count one more call. Raises ResourceExhausted (TOO_MANY_CALLS) if the holder, or all together, have too many open."""
        with self._lock:
            held = self._open.get(holder, 0)
            if held < self._per_holder and self._count < self._total:
                self._open[holder] = held + 1
                self._count += 1
                return
        raise ResourceExhausted(
            Reason.TOO_MANY_CALLS,
            f"At most {self._per_holder} calls may be open at once. Wait for the answers of some.",
            retry_after_seconds=RETRY_SECONDS,
        )

    def free(self, holder: str) -> None:
        """Give back what `take` counted."""
        with self._lock:
            self._count -= 1
            held = self._open.pop(holder) - 1
            if held:
                self._open[holder] = held
