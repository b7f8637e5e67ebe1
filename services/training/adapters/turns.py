"""Turns with inference on a small machine: training holds the compute lock during each step, inference shares it as it generates."""

import fcntl
import os
import time
from pathlib import Path

# A waiting reader is woken when the lock falls free, yet needs a moment to take it; without one it would starve.
GIVE_WAY_SECONDS = 0.01


class Turns:
    """An exclusive lock on a file, taken and given back as often as needed; without a file nobody waits for anybody."""

    def __init__(self, path: Path | None) -> None:
        self._descriptor = None if path is None else os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def take(self) -> None:
        """Wait for the turn."""
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def give(self) -> None:
        """End the turn; nothing if it was not taken."""
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            time.sleep(GIVE_WAY_SECONDS)
