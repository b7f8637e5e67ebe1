"""A folder of files by digest that pods share, such as a volume, so that a base is fetched once from the object store.

Nothing in the folder is trusted, because every pod that mounts it may change it: a file is verified while it is copied out, at each use.
"""

import fcntl
import hashlib
import os
import re
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tailor.logging import get_logger
from tailor.storage.ref import Ref

log = get_logger(__name__)

SHA256 = re.compile(r"[0-9a-f]{64}")
CHUNK_BYTES = 1024 * 1024
# A pod waits so long for another one that fetches the same file, before it fetches the file itself.
WAIT_SECONDS = 600.0
POLL_SECONDS = 0.5


class FileCache:
    """Files of at most `max_bytes` together, the least recently used ones removed first. Safe for several threads, processes and pods.

    It never fails: without it, or if its disk is full or does not lock, files come from the store.
    """

    def __init__(self, folder: Path, max_bytes: int, wait_seconds: float = WAIT_SECONDS) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._wait_seconds = wait_seconds

    def fetch(self, ref: Ref, path: Path, download: Callable[[Ref, Path], None]) -> None:
        """Write an object to a file, from the cache or by `download`, which verifies it. One pod at a time downloads an object. Blocks."""
        if not SHA256.fullmatch(ref.sha256):
            # It would be the name of a file.
            download(ref, path)
            return
        if self._copy_out(ref, path):
            return
        with self._locked(ref.sha256) as is_locked:
            if is_locked and self._copy_out(ref, path):
                return
            download(ref, path)
        self._add(ref, path)

    def _copy_out(self, ref: Ref, path: Path) -> bool:
        """Copy a cached file and verify the copy. Returns False if there is no such file; removes one that does not verify."""
        cached = self._folder / ref.sha256
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            # A link could lead out of the folder, and a pipe would block.
            source = os.open(cached, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return False
        try:
            is_same = stat.S_ISREG(os.fstat(source).st_mode) and _copy(source, partial, ref)
        except OSError as error:
            # It may be whole: this pod's own disk can be full.
            log.warning("cached file not read", error=type(error).__name__)
            partial.unlink(missing_ok=True)
            return False
        finally:
            os.close(source)
        if is_same:
            partial.replace(path)
            _touch(cached)
            return True
        partial.unlink(missing_ok=True)
        log.warning("cached file removed", reason="it differs from its digest")
        _remove(cached)
        return False

    def _add(self, ref: Ref, path: Path) -> None:
        if ref.size_bytes > self._max_bytes:
            log.warning("file not cached", reason="it is larger than the cache", size_bytes=ref.size_bytes)
            return
        with self._locked("cache") as is_locked:
            # Without the lock, several pods could exceed the limit together.
            if not is_locked:
                return
            partial = self._folder / f".{uuid.uuid4().hex}.part"
            try:
                self._make_room(ref.size_bytes)
                with path.open("rb") as source:
                    if _copy(source.fileno(), partial, ref):
                        partial.replace(self._folder / ref.sha256)
            except OSError as error:
                log.warning("file not cached", error=type(error).__name__)
            finally:
                _remove(partial)

    def _make_room(self, size_bytes: int) -> None:
        """Remove what killed pods left, and the least recently used files. Call it with the lock of the cache held."""
        files = []
        for entry in self._folder.iterdir():
            if entry.suffix == ".part":
                _remove(entry)
            elif entry.suffix != ".lock":
                status = entry.lstat()
                files.append((status.st_mtime, status.st_size, entry))
        used = sum(size for _, size, _ in files)
        for _, size, entry in sorted(files):
            if used + size_bytes <= self._max_bytes:
                break
            _remove(entry)
            used -= size

    @contextmanager
    def _locked(self, name: str) -> Iterator[bool]:
        """Hold a lock, which ends with its process. Yields False if it cannot be had in time, or not at all."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(self._folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o660)
        except OSError as error:
            log.warning("cache not usable", error=type(error).__name__)
            yield False
            return
        try:
            yield self._acquire(lock)
        finally:
            os.close(lock)

    def _acquire(self, lock: int) -> bool:
        deadline = time.monotonic() + self._wait_seconds
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(POLL_SECONDS)
            except OSError:
                return False
            else:
                return True


def _copy(source: int, target: Path, ref: Ref) -> bool:
    """Copy at most the object's size to a new file. Returns True if the copy is the object."""
    hasher, copied = hashlib.sha256(), 0
    with target.open("wb") as file:
        while chunk := os.read(source, CHUNK_BYTES):
            copied += len(chunk)
            if copied > ref.size_bytes:
                return False
            hasher.update(chunk)
            file.write(chunk)
    return copied == ref.size_bytes and hasher.hexdigest() == ref.sha256


def _touch(path: Path) -> None:
    try:
        os.utime(path, follow_symlinks=False)
    except OSError:
        # Another pod has removed it, or the folder may only be read.
        return


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return
