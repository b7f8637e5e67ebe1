"""What is kept while serving: which name means what, which adapters hold a slot, and how many answers are being written."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from services.inference.domain import AdapterName, Engine, Library, Probe, Served
from tailor.errors import Aborted, Reason, ResourceExhausted, Unavailable

WAKE_SECONDS = 0.25
SECONDS_PER_PLACE = 0.5
# A call waits so long for an adapter's slot, or for the loads before its own.
SLOT_SECONDS = 30.0


def _nobody_listens(name: str, known: bool) -> None:
    del name, known


class Table:
    """Names and what they mean, and the candidates; `known` is told when a name comes or goes. Thread-safe."""

    def __init__(self, known: Callable[[str, bool], None] = _nobody_listens) -> None:
        self._known = known
        self._lock = threading.Lock()
        self._served: dict[str, Served] = {}
        self._seen: dict[str, int] = {}
        self._candidates: dict[str, Served] = {}

    def is_newer(self, served: Served) -> bool:
        """True if the generation is newer than every one that was settled here."""
        with self._lock:
            return served.generation > self._seen.get(served.specialist, 0)

    def switch(self, served: Served) -> None:
        """From now on the specialist's name means this."""
        with self._lock:
            self._served[served.specialist] = served
        self._known(served.specialist, True)

    def settle(self, served: Served) -> None:
        """This generation was served or refused, and said so; older ones and itself are not looked at again."""
        with self._lock:
            self._seen[served.specialist] = served.generation

    def remove(self, specialist: str) -> None:
        """The name means nothing any more."""
        with self._lock:
            self._served.pop(specialist, None)
        self._known(specialist, False)

    def get(self, specialist: str) -> Served | None:
        """What a name means; None where it means nothing here."""
        with self._lock:
            return self._served.get(specialist)

    def all(self) -> list[Served]:
        """Everything that serves."""
        with self._lock:
            return list(self._served.values())

    def add_candidate(self, adapter: AdapterName) -> None:
        """From now on evaluation may use the adapter."""
        with self._lock:
            self._candidates[adapter.digest] = Served(adapter=adapter)

    def drop_candidate(self, digest: str) -> bool:
        """Evaluation may not use the adapter any more; True where it could."""
        with self._lock:
            return self._candidates.pop(digest, None) is not None

    def candidate(self, digest: str) -> Served | None:
        """A candidate by its digest; None before it was loaded."""
        with self._lock:
            return self._candidates.get(digest)


def _never() -> bool:
    return False


class Shelf:
    """Keeps adapters in the engine's slots: the least recently used makes room, never one in use. Where all are in use, the least recently
    used takes no new answers until its last has ended; so none waits for ever. Thread-safe."""

    def __init__(self, engine: Engine, library: Library, slots: int, wait_seconds: float = SLOT_SECONDS) -> None:
        self._engine = engine
        self._library = library
        self._slots = slots
        self._wait_seconds = wait_seconds
        self._loading = threading.Lock()
        self._changed = threading.Condition()
        self._users: OrderedDict[str, int] = OrderedDict()
        self._leaving = ""

    @contextmanager
    def using(self, adapter: AdapterName | None, cancelled: Callable[[], bool] = _never) -> Iterator[str]:
        """Hold an adapter, loading it first if needed; gives its digest, empty for None. It is not unloaded meanwhile.

        It waits where every slot is in use: ResourceExhausted where that takes too long, Aborted where cancelled meanwhile.
        FailedPrecondition where the adapter does not verify, Unavailable where it cannot be fetched.
        """
        if adapter is None:
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

    def probes(self, adapter: AdapterName) -> Sequence[Probe]:
        """The adapter's probe rows; errors as in using."""
        return self._library.probes(adapter)

    def drop(self, digest: str) -> bool:
        """Take an adapter out of the engine and off the disk; True where it was in either. Unavailable while it is in use."""
        with self._loading:
            with self._changed:
                if self._users.get(digest, 0) > 0:
                    raise Unavailable(Reason.ADAPTER_IN_USE, "An answer is still being written with the adapter.")
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

    def _load(self, adapter: AdapterName, cancelled: Callable[[], bool]) -> None:
        if not self._loading.acquire(timeout=self._wait_seconds):
            raise no_free_slot()
        try:
            if self._hold(adapter.digest):
                return
            if cancelled():
                raise gone()
            folder = self._library.fetch(adapter)
            victim = self._victim(cancelled)
            if victim:
                self._engine.unload(victim)
            self._engine.load(adapter.digest, folder)
            with self._changed:
                self._users[adapter.digest] = 1
        finally:
            self._loading.release()

    def _victim(self, cancelled: Callable[[], bool]) -> str:
        """Take the least recently used adapter off the shelf, as soon as one is not in use; empty while a slot is free."""
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
                        raise gone()
                    if time.monotonic() >= deadline:
                        raise no_free_slot()
                    self._changed.wait(WAKE_SECONDS)
                return ""
            finally:
                self._leaving = ""


def no_free_slot() -> ResourceExhausted:
    """A slot was waited for in vain."""
    return ResourceExhausted(
        Reason.NO_FREE_SLOT, "Every adapter slot is in use; retry when an answer has ended.", retry_after_seconds=2.0
    )


def gone() -> Aborted:
    """The caller does not wait any more."""
    return Aborted(Reason.CANCELLED, "The caller went away before the answer began.")


class Admission:
    """Lets so many answers be written at once and so many calls wait, first come first served. Thread-safe."""

    def __init__(self, max_concurrent: int, max_queued: int) -> None:
        self._max_concurrent = max_concurrent
        self._max_queued = max_queued
        self._condition = threading.Condition()
        self._running = 0
        self._queue: list[object] = []

    @contextmanager
    def place(self, cancelled: Callable[[], bool]) -> Iterator[None]:
        """Hold a place; ResourceExhausted with a retry time where the queue is full, Aborted where cancelled while waiting."""
        self._enter(cancelled)
        try:
            yield
        finally:
            with self._condition:
                self._running -= 1
                self._condition.notify_all()

    def _enter(self, cancelled: Callable[[], bool]) -> None:
        ticket = object()
        with self._condition:
            if self._running < self._max_concurrent and not self._queue:
                self._running += 1
                return
            if len(self._queue) >= self._max_queued:
                wait = max(1.0, SECONDS_PER_PLACE * len(self._queue))
                raise ResourceExhausted(Reason.QUEUE_FULL, "Too many calls wait already.", retry_after_seconds=wait)
            self._queue.append(ticket)
            try:
                while self._queue[0] is not ticket or self._running >= self._max_concurrent:
                    self._condition.wait(WAKE_SECONDS)
                    if cancelled():
                        raise gone()
                self._running += 1
            finally:
                self._queue.remove(ticket)
                self._condition.notify_all()
