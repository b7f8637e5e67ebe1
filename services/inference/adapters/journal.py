"""Drafts that wait for the broker, in a file: they survive the process, and no answer waits for the broker."""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tailor.errors import Reason, ResourceExhausted, Unavailable


class Journal:
    """Values in the order in which they were added, until each is removed. Thread-safe; only one process may open the file.

    Values that `add` accepted survive a `kill -9` of the process. A machine that loses power may lose the last values.
    """

    def __init__(self, path: Path, limit: int) -> None:
        """Open or create the file. This and every method raise Unavailable (JOURNAL_UNAVAILABLE) if the file cannot be used."""
        self._limit = limit
        self._lock = threading.Lock()
        with _wrap_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            # A commit writes to the write-ahead log, which the system keeps if the process dies; nothing waits for the disk.
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute("PRAGMA synchronous = NORMAL")
            self._file.execute(
                "CREATE TABLE IF NOT EXISTS waiting (position INTEGER PRIMARY KEY AUTOINCREMENT, value BLOB NOT NULL)"
            )
            self._count = int(self._file.execute("SELECT count(*) FROM waiting").fetchone()[0])

    def __len__(self) -> int:
        return self._count

    def add(self, value: bytes) -> None:
        """Raises ResourceExhausted (TOO_MANY_DRAFTS) at the limit."""
        with self._lock, _wrap_errors():
            if self._count >= self._limit:
                raise ResourceExhausted(
                    Reason.TOO_MANY_DRAFTS,
                    "The broker has been away for too long: too many drafts wait for it. Retry.",
                    retry_after_seconds=30.0,
                )
            self._file.execute("INSERT INTO waiting (value) VALUES (?)", (value,))
            self._count += 1

    def first(self, number: int) -> Sequence[tuple[int, bytes]]:
        """The oldest values with their positions."""
        with self._lock, _wrap_errors():
            rows = self._file.execute("SELECT position, value FROM waiting ORDER BY position LIMIT ?", (number,))
            return rows.fetchall()

    def remove(self, position: int) -> None:
        with self._lock, _wrap_errors():
            self._count -= self._file.execute("DELETE FROM waiting WHERE position = ?", (position,)).rowcount

    def close(self) -> None:
        with self._lock:
            self._file.close()


@contextmanager
def _wrap_errors() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise Unavailable(
            Reason.JOURNAL_UNAVAILABLE,
            f"The journal of drafts cannot be used ({error}). Check the disk under TAILOR_DATA_DIR.",
        ) from None
