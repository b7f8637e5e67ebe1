"""Parts of a process that must show that they go on. `/livez` fails while one is silent, and Kubernetes then restarts the process.

Only a part that never waits for anything outside of the process for long may have one: a restart mends no broker and no database.
"""

import threading
import time
from collections.abc import Callable


class Heartbeats:
    """When each part was last heard of. Thread-safe."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._until: dict[str, float] = {}

    def beat(self, part: str, within_seconds: float) -> None:
        """Show that the part goes on, and promise the next beat within a number of seconds."""
        with self._lock:
            self._until[part] = self._now() + within_seconds

    def end(self, part: str) -> None:
        """Expect no more beats of the part."""
        with self._lock:
            self._until.pop(part, None)

    def silent(self) -> list[str]:
        """The parts whose next beat is overdue."""
        with self._lock:
            return sorted(part for part, until in self._until.items() if until < self._now())
