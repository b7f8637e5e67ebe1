"""How the processes of one machine share it: inference says that somebody waits for the model, and training looks before it goes on."""

import fcntl
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# `struct flock` on Linux: type, whence, start, length, process, padding.
FLOCK = "hhqqi0q"


class ComputeLock:
    """A lock on a file that is held while somebody waits for an answer. The kernel releases it when its holder dies.

    It is only ever shared, so that holding it never blocks. Others look at it without taking it (F_OFD_GETLK): a process that is suspended
    while it looks, or killed, cannot keep anybody from holding it. Thread-safe.
    """

    def __init__(self, path: Path) -> None:
        self._file = _open(path)
        self._mutex = threading.Lock()
        self._holders = 0

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

    def _add(self, holders: int) -> None:
        with self._mutex:
            before, self._holders = self._holders, self._holders + holders
            if bool(before) != bool(self._holders):
                kind = fcntl.F_RDLCK if self._holders else fcntl.F_UNLCK
                fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _request(kind))


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
