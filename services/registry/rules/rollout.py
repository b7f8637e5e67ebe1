"""When a promotion has reached all replicas: the rule behind `finished` and `tailor adapter promote --wait`."""

from collections.abc import Sequence

from services.registry.domain import ReplicaRollout


def is_finished(rollout: Sequence[ReplicaRollout]) -> bool:
    """True if every ready replica serves the generation; False if no replica is ready."""
    return bool(rollout) and all(entry.serving for entry in rollout)
