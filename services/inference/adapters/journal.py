"""Drafts that the broker does not have yet, in a file: they outlive the process, and no answer waits for the broker."""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tailor.errors import Reason, ResourceExhausted, Unavailable


class Journal:
    """Values in the order in which they came, until each is removed. Thread-safe; one process may have the file.

    What `add` took is there after a `kill -9` of the process. A machine that loses its power may lose the last of them.
    """

    def __init__(self, path: Path, limit: int) -> None:
        """Open or make the file. Unavailable (JOURNAL_UNAVAILABLE) where that fails; here and in every method."""
        self._limit = limit
        self._lock = threading.Lock()
        with _wrapped():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            # A commit is a write to the log beside the file, which the system keeps for a process that dies; nothing waits for the disk.
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute("PRAGMA synchronous = NORMAL")
            self._file.execute(
                "CREATE TABLE IF NOT EXISTS waiting (position INTEGER PRIMARY KEY AUTOINCREMENT, value BLOB NOT NULL)"
            )
            self._count = int(self._file.execute("SELECT count(*) FROM waiting").fetchone()[0])

    def __len__(self) -> int:
        return self._count

    def add(self, value: bytes) -> None:
        """Keep a value; ResourceExhausted (TOO_MANY_DRAFTS) where the limit is reached."""
        with self._lock, _wrapped():
            if self._count >= self._limit:
                raise ResourceExhausted(
                    Reason.TOO_MANY_DRAFTS, "The broker has been away for too long.", retry_after_seconds=30.0
                )
            self._file.execute("INSERT INTO waiting (value) VALUES (?)", (value,))
            self._count += 1

    def first(self, number: int) -> Sequence[tuple[int, bytes]]:
        """The oldest values with their positions."""
        with self._lock, _wrapped():
            rows = self._file.execute("SELECT position, value FROM waiting ORDER BY position LIMIT ?", (number,))
            return rows.fetchall()

    def remove(self, position: int) -> None:
        """Forget a value."""
        with self._lock, _wrapped():
            self._count -= self._file.execute("DELETE FROM waiting WHERE position = ?", (position,)).rowcount

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._file.close()


@contextmanager
def _wrapped() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise Unavailable(
            Reason.JOURNAL_UNAVAILABLE,
            f"The file of waiting drafts cannot be used ({error}): see to the disk under TAILOR_DATA_DIR.",
        ) from None
