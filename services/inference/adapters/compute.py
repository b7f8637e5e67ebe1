"""Sharing one machine with training, by a file lock."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from services.inference.ports import HoldCompute
from tailor.compute_lock import ComputeLock

HOLD_SECONDS = 5.0


class SharedCompute:
    """Holds the lock, shared, while anything is generated; training holds it exclusively for each optimiser step.

    After HOLD_SECONDS of unbroken generation, new generations wait until the running ones have ended and training held the lock once.
    """

    def __init__(self, path: Path, now: Callable[[], float] = time.monotonic) -> None:
        self._lock = ComputeLock(path)
        self._now = now
        self._condition = threading.Condition()
        self._active = 0
        self._since = 0.0
        self._changing = False

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the machine, shared with other generations. Blocks while training holds it. Thread-safe."""
        self._enter()
        try:
            yield
        finally:
            self._leave()

    def _enter(self) -> None:
        with self._condition:
            while self._changing or (self._active and self._now() - self._since > HOLD_SECONDS):
                self._condition.wait()
            if self._active:
                self._active += 1
                return
            self._changing = True
        self._lock.acquire(shared=True)
        with self._condition:
            self._changing = False
            self._active = 1
            self._since = self._now()
            self._condition.notify_all()

    def _leave(self) -> None:
        with self._condition:
            self._active -= 1
            if self._active:
                return
            self._changing = True
        self._lock.release()
        with self._condition:
            self._changing = False
            self._condition.notify_all()


def choose_compute(path: Path | None) -> HoldCompute:
    """The lock of a file; without one the machine is never shared."""
    return SharedCompute(path).hold if path else nullcontext
