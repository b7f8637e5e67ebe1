"""Rollouts: which inference replicas are ready, and whether a promotion has reached all of them. Rules alone."""

from dataclasses import dataclass
from datetime import datetime, timedelta

# A ready replica speaks every ten seconds; one that is silent for so long was killed, or cannot be counted on.
SILENT = timedelta(seconds=30)
# Names of replicas come and go.
KEPT = timedelta(days=1)


@dataclass(frozen=True)
class Replica:
    """What an inference replica last said of itself."""

    name: str
    base: str
    seen_time: datetime
    leaving: bool = False

    def is_ready(self, now: datetime) -> bool:
        """True for one that spoke lately and does not leave."""
        return not self.leaving and now - self.seen_time < SILENT


@dataclass(frozen=True)
class Reached:
    """How far a ready replica is with a generation: it serves it, refuses it with a reason, or has said nothing yet."""

    replica: Replica
    serving: bool = False
    refusal: str = ""


def is_finished(rollout: list[Reached]) -> bool:
    """True once every ready replica serves the generation. Where none is ready nobody serves it."""
    return bool(rollout) and all(reached.serving for reached in rollout)
