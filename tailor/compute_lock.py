"""How the processes of one machine share it: inference says that somebody waits for the model, and training looks before it goes on.

If calls wait for long, they take turns: computing at once, with threads that wait for each other, both would be many times slower.
"""

import fcntl
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# `struct flock` on Linux: type, whence, start, length, process, padding.
FLOCK = "hhqqi0q"
# The end of training's turn, in seconds of the machine's monotonic clock, as the file's content.
TURN_END = "d"
# The longest turn that anybody waits for.
TURN_SECONDS = 0.5


class ComputeLock:
    """A lock on a file that is held while somebody waits for an answer. The kernel releases it when its holder dies.

    It is only ever shared, so that holding it never blocks. Others look at it without taking it (F_OFD_GETLK): a process that is suspended
    while it looks, or killed, cannot keep anybody from holding it. Thread-safe.
    """

    def __init__(
        self, path: Path, now: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._file = _open(path)
        self._now = now
        self._sleep = sleep
        self._mutex = threading.Lock()
        self._holders = 0
        self._waited_until = 0.0

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the lock, shared with any number of threads and processes. Never blocks."""
        self._add(1)
        try:
            yield
        finally:
            self._add(-1)

    def is_held(self) -> bool:
        """Whether anybody else holds the lock; holders of this same object do not count. Never blocks."""
        conflict = fcntl.fcntl(self._file, fcntl.F_OFD_GETLK, _request(fcntl.F_WRLCK))
        return bool(struct.unpack(FLOCK, conflict)[0] != fcntl.F_UNLCK)

    def take_turn(self) -> None:
        """Ask the holders to leave the cores to this process for `TURN_SECONDS`. Never blocks. The turn ends by itself."""
        os.pwrite(self._file, struct.pack(TURN_END, self._now() + TURN_SECONDS), 0)

    def await_turn(self) -> None:
        """Block until the turn of others has ended. After waiting for one, it waits for none for as long."""
        now = self._now()
        content = os.pread(self._file, struct.calcsize(TURN_END), 0)
        ends = struct.unpack(TURN_END, content)[0] if content else 0.0
        # An end that is further away was written before the machine started again.
        if now >= self._waited_until and now < ends <= now + TURN_SECONDS:
            self._waited_until = ends + ends - now
            self._sleep(ends - now)

    def _add(self, holders: int) -> None:
        with self._mutex:
            before, self._holders = self._holders, self._holders + holders
            if bool(before) != bool(self._holders):
                kind = fcntl.F_RDLCK if self._holders else fcntl.F_UNLCK
                fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _request(kind))


def awaiting_turns(path: Path | None) -> Callable[[], None]:
    """`ComputeLock.await_turn` of the lock at `path`; without a path it does nothing."""
    return ComputeLock(path).await_turn if path else lambda: None


@contextmanager
def memory_lock(path: Path) -> Iterator[None]:
    """Hold what only one process of the machine may hold: the memory of a further copy of a model. Blocks until it is free.

    `path` is that of the compute lock; the file is another one. The kernel releases it when its holder dies.
    """
    file = _open(path.with_name(f"{path.name}.memory"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def _open(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _request(kind: int) -> bytes:
    """A request about the whole file."""
    return struct.pack(FLOCK, kind, os.SEEK_SET, 0, 0, 0)
