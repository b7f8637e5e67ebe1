"""Loads adapters into the engine's slots when a call needs them, and evicts idle ones: an engine holds only a few at once."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from services.inference.adapters.model_store import VerifiedLibrary
from services.inference.admission import WAKE_SECONDS, caller_gone
from services.inference.domain import AdapterRef, Probe
from services.inference.ports import InferenceEngine
from tailor.errors import Reason, ResourceExhausted, Unavailable

# The longest wait for a slot, or for earlier loads to end.
SLOT_SECONDS = 30.0


def _never() -> bool:
    return False


class AdapterCache:
    """Loads adapters into the engine's slots, and evicts the least recently used one that is idle. Thread-safe.

    If all are in use, the least recently used one gets no new answers until its last answer has ended, so that nobody waits for ever.
    `merged` is the digest of the adapter that the base's own weights serve.
    """

    def __init__(
        self,
        engine: InferenceEngine,
        library: VerifiedLibrary,
        slots: int,
        wait_seconds: float = SLOT_SECONDS,
        merged: str = "",
    ) -> None:
        self._engine = engine
        self._library = library
        self._slots = slots
        self._wait_seconds = wait_seconds
        self._merged = merged
        self._loading = threading.Lock()
        self._changed = threading.Condition()
        self._users: OrderedDict[str, int] = OrderedDict()
        self._leaving = ""

    @contextmanager
    def using(self, adapter: AdapterRef | None, cancelled: Callable[[], bool] = _never) -> Iterator[str]:
        """Hold an adapter, loading it first if needed, and yield its digest; empty for None, and for the one that the base contains.

        A held adapter is never unloaded.

        Blocks while every slot is in use. Raises ResourceExhausted (NO_FREE_SLOT) after `wait_seconds`, Aborted if cancelled meanwhile,
        FailedPrecondition if the adapter does not verify, Unavailable if it cannot be fetched.
        """
        if adapter is None or adapter.digest == self._merged:
            yield ""
            return
        if not self._hold(adapter.digest):
            self._load(adapter, cancelled)
        try:
            yield adapter.digest
        finally:
            with self._changed:
                self._users[adapter.digest] -= 1
                self._changed.notify_all()

    def probes(self, adapter: AdapterRef) -> Sequence[Probe]:
        """The adapter's probe rows; errors as in `using`."""
        return self._library.probes(adapter)

    def drop(self, digest: str) -> bool:
        """Remove an adapter from the engine and from disk; True if it was in either. Raises Unavailable while it is in use."""
        with self._loading:
            with self._changed:
                if self._users.get(digest, 0) > 0:
                    raise Unavailable(Reason.ADAPTER_IN_USE, "An answer is still being generated with the adapter.")
                loaded = self._users.pop(digest, None) is not None
            if loaded:
                self._engine.unload(digest)
            return self._library.drop(digest) or loaded

    def _hold(self, digest: str) -> bool:
        with self._changed:
            if digest not in self._users or digest == self._leaving:
                return False
            self._users[digest] += 1
            self._users.move_to_end(digest)
            return True

    def _load(self, adapter: AdapterRef, cancelled: Callable[[], bool]) -> None:
        if not self._loading.acquire(timeout=self._wait_seconds):
            raise _no_free_slot()
        try:
            if self._hold(adapter.digest):
                return
            if cancelled():
                raise caller_gone()
            folder = self._library.fetch(adapter)
            victim = self._evict(cancelled)
            if victim:
                self._engine.unload(victim)
            self._engine.load(adapter.digest, folder)
            with self._changed:
                self._users[adapter.digest] = 1
        finally:
            self._loading.release()

    def _evict(self, cancelled: Callable[[], bool]) -> str:
        """Forget the least recently used adapter as soon as one is idle, and return its digest; empty while a slot is free."""
        deadline = time.monotonic() + self._wait_seconds
        with self._changed:
            try:
                while len(self._users) >= self._slots:
                    idle = next((digest for digest, users in self._users.items() if not users), "")
                    if idle:
                        del self._users[idle]
                        return idle
                    self._leaving = next(iter(self._users))
                    if cancelled():
                        raise caller_gone()
                    if time.monotonic() >= deadline:
                        raise _no_free_slot()
                    self._changed.wait(WAKE_SECONDS)
                return ""
            finally:
                self._leaving = ""


def _no_free_slot() -> ResourceExhausted:
    return ResourceExhausted(
        Reason.NO_FREE_SLOT, "Every adapter slot is in use. Retry when an answer has ended.", retry_after_seconds=2.0
    )
