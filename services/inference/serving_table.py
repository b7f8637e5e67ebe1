"""Which model each name stands for, and which candidates evaluation may use."""

import threading
import time
from collections.abc import Callable

from services.inference.deployments import MovedName
from services.inference.domain import AdapterRef, ServedModel

# A replica of the new base may have passed a call on to this one just before it served the generation itself.
HELD_SECONDS = 60.0


def _ignore(name: str, known: bool) -> None:
    del name, known


class ServingTable:
    """Served models by name, and candidates by digest. Calls `on_change(name, known)` when a name appears or goes. Thread-safe."""

    def __init__(self, on_change: Callable[[str, bool], None] = _ignore) -> None:
        self._on_change = on_change
        self._lock = threading.Lock()
        self._served: dict[str, ServedModel] = {}
        self._settled: dict[str, int] = {}
        self._candidates: dict[str, ServedModel] = {}
        self._moved: dict[str, MovedName] = {}
        self._handed_over: dict[str, float] = {}

    def is_newer(self, served: ServedModel) -> bool:
        """True if no generation as new as this one was settled here."""
        with self._lock:
            return served.generation > self._settled.get(served.specialist, 0)

    def switch(self, served: ServedModel) -> None:
        """Let the specialist's name stand for this model."""
        with self._lock:
            self._served[served.specialist] = served
            self._moved.pop(served.specialist, None)
            self._handed_over.pop(served.specialist, None)
        self._on_change(served.specialist, True)

    def settle(self, served: ServedModel) -> None:
        """Record that this generation was served and reported, so that it and older ones are ignored from now on."""
        with self._lock:
            self._settled[served.specialist] = served.generation

    def remove(self, specialist: str) -> None:
        with self._lock:
            for table in (self._served, self._moved, self._handed_over):
                table.pop(specialist, None)
        self._on_change(specialist, False)

    def end(self, specialist: str, generation: int) -> None:
        """Remove a deleted specialist, and ignore this generation and older ones from now on."""
        with self._lock:
            self._settled[specialist] = max(generation, self._settled.get(specialist, 0))
        self.remove(specialist)

    def move(self, name: MovedName) -> None:
        """Record a name's move to another base. What serves here is held until `hand_over`. Older generations are ignored."""
        with self._lock:
            if name.generation <= self._settled.get(name.specialist, 0):
                return
            self._settled[name.specialist] = name.generation
            self._moved[name.specialist] = name
            self._handed_over.pop(name.specialist, None)
        self._on_change(name.specialist, True)

    def refuse(self, name: MovedName) -> None:
        """Record a generation that was refused here and reported. A deployment whose base stands for its adapter may serve it."""
        with self._lock:
            self._settled[name.specialist] = name.generation
            self._moved[name.specialist] = name
            self._handed_over.pop(name.specialist, None)

    def moved(self) -> list[MovedName]:
        """The names that moved to other bases, or may."""
        with self._lock:
            return list(self._moved.values())

    def find_moved(self, specialist: str, *, is_forwarded: bool = False) -> MovedName | None:
        """The name if it is answered on another base now. A call that comes from there is answered here while anything is held for it."""
        with self._lock:
            is_held = specialist in self._served and (is_forwarded or specialist not in self._handed_over)
            return None if is_held else self._moved.get(specialist)

    def hand_over(self, specialist: str) -> None:
        """Let the other base answer from now on, and let go of what is held here a minute later. Called again and again."""
        with self._lock:
            since = self._handed_over.setdefault(specialist, time.monotonic())
            if time.monotonic() - since > HELD_SECONDS:
                self._served.pop(specialist, None)
        self._on_change(specialist, True)

    def get(self, specialist: str) -> ServedModel | None:
        with self._lock:
            return self._served.get(specialist)

    def all(self) -> list[ServedModel]:
        with self._lock:
            return list(self._served.values())

    def add_candidate(self, adapter: AdapterRef) -> None:
        """Let evaluation use the adapter."""
        with self._lock:
            self._candidates[adapter.digest] = ServedModel(adapter=adapter)

    def drop_candidate(self, digest: str) -> bool:
        """Stop letting evaluation use the adapter; True if it could."""
        with self._lock:
            return self._candidates.pop(digest, None) is not None

    def candidate(self, digest: str) -> ServedModel | None:
        """A loaded candidate by its adapter's digest."""
        with self._lock:
            return self._candidates.get(digest)
