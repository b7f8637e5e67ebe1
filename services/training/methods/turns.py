"""Turns with inference on a small machine: training has the compute lock alone during each step, inference shares it as it generates."""

from pathlib import Path

from tailor.compute_lock import ComputeLock


class Turns:
    """The compute lock, taken and given back as often as needed; without a file nobody waits for anybody."""

    def __init__(self, path: Path | None) -> None:
        self._lock = None if path is None else ComputeLock(path)

    def take(self) -> None:
        """Wait for the turn."""
        if self._lock is not None:
            self._lock.acquire()

    def give(self) -> None:
        """End the turn; nothing if it was not taken."""
        if self._lock is not None:
            self._lock.release()
