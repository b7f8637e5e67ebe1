"""Checkpoints on their way to the store while training goes on."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Uploads:
    """One upload at a time, in a thread of its own. What it raises is raised by the next call."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="upload")
        self._running: Future[None] | None = None

    def begin(self, upload: Callable[[], None]) -> None:
        """Begin once the one before has ended; it blocks until then."""
        self.finish()
        self._running = self._executor.submit(upload)

    def finish(self) -> None:
        """Wait until nothing is on its way."""
        running, self._running = self._running, None
        if running is not None:
            running.result()
