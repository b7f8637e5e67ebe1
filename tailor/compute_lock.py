"""A fair lock between the processes of one machine, shared or exclusive."""

import fcntl
import os
import time
from pathlib import Path

YIELD_SECONDS = 0.5
POLL_SECONDS = 0.001


class ComputeLock:
    """A lock on a file, for every process that opens the same path. The kernel releases it when its holder dies.

    A bare `flock` starves waiters: a process that releases it and acquires it again at once always wins. Here a waiter locks a second file,
    and `release` returns only after the waiter has acquired the lock, or after half a second, because the waiter may be suspended.
    Neither call takes time if nobody waits.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _open(path)
        self._waiting = _open(path.with_name(f"{path.name}.waiting"))

    def acquire(self, *, shared: bool = False) -> None:
        """Block until the lock is held, exclusively or shared."""
        fcntl.flock(self._waiting, fcntl.LOCK_SH)
        fcntl.flock(self._lock, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        fcntl.flock(self._waiting, fcntl.LOCK_UN)

    def release(self) -> None:
        """Release the lock and let waiters go first. Does nothing if it is not held."""
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        until = time.monotonic() + YIELD_SECONDS
        while self._has_waiter() and time.monotonic() < until:
            time.sleep(POLL_SECONDS)

    def _has_waiter(self) -> bool:
        try:
            fcntl.flock(self._waiting, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._waiting, fcntl.LOCK_UN)
        return False


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
