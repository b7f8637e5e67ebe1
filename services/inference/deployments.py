"""The ready replicas of all inference deployments, each with its base and what it serves."""

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tailor.errors import FailedPrecondition, Reason, Unavailable

# A ready replica reports every 10 seconds. After this silence it does not count as ready.
MAX_SILENCE = 30.0


@dataclass(frozen=True)
class ReadyReplica:
    """A replica's last report. `seen` is its time in seconds since 1970, `merged` the digest of the adapter in its base's weights."""

    name: str
    base: str
    seen: float
    address: str = ""
    generations: Mapping[str, int] = field(default_factory=dict)
    merged: str = ""


@dataclass(frozen=True)
class MovedName:
    """A specialist whose newest generation is served on another base, or was refused on its own."""

    specialist: str
    generation: int
    base: str
    adapter_digest: str = ""


class Deployments:
    """What replicas of all bases reported last; `base` is the own one. Thread-safe."""

    def __init__(self, base: str = "", now: Callable[[], float] = time.time) -> None:
        self._base = base
        self._now = now
        self._lock = threading.Lock()
        self._replicas: dict[str, ReadyReplica] = {}
        # The bases that were seen, with the digest of the adapter in their weights.
        self._bases: dict[str, str] = {}

    def see(self, replica: ReadyReplica, *, leaving: bool = False) -> None:
        """Apply a report."""
        with self._lock:
            self._bases[replica.base] = replica.merged
            self._replicas.pop(replica.name, None)
            if not leaving and self._now() - replica.seen < MAX_SILENCE:
                self._replicas[replica.name] = replica

    def other_bases(self) -> list[str]:
        """The other bases with a replica that can be reached, sorted."""
        return sorted({replica.base for replica in self._ready() if replica.address} - {self._base})

    def find_base(self, base: str, adapter_digest: str) -> str:
        """The base that serves an adapter: one whose weights it was merged into if there has been a deployment of it, else its own."""
        with self._lock:
            return next((name for name, merged in self._bases.items() if merged and merged == adapter_digest), base)

    def serve(self, name: MovedName) -> bool:
        """True if replicas of another base that serves the name are ready, and all of them serve the generation."""
        base = self.find_base(name.base, name.adapter_digest)
        generations = [it.generations.get(name.specialist, 0) for it in self._ready() if it.base == base and it.address]
        return base != self._base and bool(generations) and min(generations) >= name.generation

    def address(self, base: str, *, always_same: bool = False) -> str:
        """Where a replica of a base is reached: a random one, or always the same one.

        Raises Unavailable if none is ready, and FailedPrecondition (NOT_SERVING) for a base of which none was seen.
        """
        addresses = sorted({replica.address for replica in self._ready() if replica.base == base} - {""})
        if addresses:
            return addresses[0] if always_same else random.choice(addresses)  # noqa: S311 # nosec B311 - it only spreads calls
        if base in self._bases:
            raise Unavailable(
                Reason.NO_MODEL_READY,
                f"No inference replica of the base {base} can be reached now. Retry. If it stays so, start one with "
                "TAILOR_ADVERTISED_ADDRESS.",
                retry_after_seconds=2.0,
            )
        raise FailedPrecondition(
            Reason.NOT_SERVING,
            f"No inference deployment has the base {base}. Start one with TAILOR_BASE={base} and TAILOR_ADVERTISED_ADDRESS.",
            field_violations={"model": "not served"},
        )

    def _ready(self) -> list[ReadyReplica]:
        oldest = self._now() - MAX_SILENCE
        with self._lock:
            return [replica for replica in self._replicas.values() if replica.seen > oldest]
