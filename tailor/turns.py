"""A lock that the processes of one machine take in turns: many share it, or one has it alone."""

import fcntl
import os
import time
from pathlib import Path

GIVE_WAY_SECONDS = 0.5
LOOK_SECONDS = 0.001


class TurnLock:
    """A lock on a file, shared with everybody who opens the same one; it falls free with its holder's process.

    With a bare `flock`, whoever gives it back and takes it again at once is always the first. Here who waits says so by a lock on a second
    file, and who gives back goes on once they have had it, or after half a second, for they may have been stopped. Where nobody waits,
    neither takes time.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._turn = _open(path)
        self._waiting = _open(path.with_name(f"{path.name}.waiting"))

    def take(self, *, shared: bool = False) -> None:
        """Wait for the turn, alone or beside others who share it."""
        fcntl.flock(self._waiting, fcntl.LOCK_SH)
        fcntl.flock(self._turn, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        fcntl.flock(self._waiting, fcntl.LOCK_UN)

    def give(self) -> None:
        """End the turn, and let those who wait go first; nothing if it was not taken."""
        fcntl.flock(self._turn, fcntl.LOCK_UN)
        until = time.monotonic() + GIVE_WAY_SECONDS
        while self._is_waited_for() and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)

    def _is_waited_for(self) -> bool:
        try:
            fcntl.flock(self._waiting, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._waiting, fcntl.LOCK_UN)
        return False


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
