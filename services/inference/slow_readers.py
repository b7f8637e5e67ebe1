"""A stream that nobody reads is cancelled, because it holds a place that others wait for."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tailor.logging import get_logger

log = get_logger(__name__)

# A reader on a slow line needs less for one piece, even if the line breaks off for a moment.
UNREAD_SECONDS = 30.0
LOOK_SECONDS = 0.5


class SlowReaders:
    """Watches the readers of streams. One thread, which lives while somebody reads. Thread-safe."""

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = UNREAD_SECONDS if seconds is None else seconds
        self._readers: dict[object, tuple[float, Callable[[], object]]] = {}
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None

    @contextmanager
    def reading(self, cancel: Callable[[], object]) -> Iterator[None]:
        """While a reader has a piece of its stream. `cancel` is called once, from another thread, if it takes too long."""
        reader = object()
        with self._condition:
            self._readers[reader] = (time.monotonic() + self._seconds, cancel)
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="slow-readers", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._condition:
                self._readers.pop(reader, None)

    def _watch(self) -> None:
        while True:
            time.sleep(min(LOOK_SECONDS, self._seconds))
            with self._condition:
                now = time.monotonic()
                overdue = [reader for reader, (until, _) in self._readers.items() if until < now]
                cancels = [self._readers.pop(reader)[1] for reader in overdue]
                if not self._readers:
                    self._thread = None
            for cancel in cancels:
                log.info("stream cancelled", reason="nobody reads it")
                cancel()
            if self._thread is not threading.current_thread():
                return
