"""Which deployment answers for a model: this one, or one of another base."""

import time

from services.inference.deployments import Deployments, ReadyReplica
from services.inference.domain import AT_BASE, CANDIDATE_PREFIX, Caller
from services.inference.generation import Inference, ModelServer
from tailor.errors import FailedPrecondition, Reason


def find_base(inference: Inference, caller: Caller, model: str, *, is_forwarded: bool = False) -> str:
    """The other base whose replicas answer for a model; empty if this replica does, or refuses it.

    Raises FailedPrecondition (NOT_SERVING) if a replica of another base has passed the call on to this one by mistake.
    """
    models, (name, _, base) = inference.models, model.partition(AT_BASE)
    moved = models.table.find_moved(name, is_forwarded=is_forwarded) if caller.may_use(name) and not base else None
    digest = name.removeprefix(CANDIDATE_PREFIX) if name.startswith(CANDIDATE_PREFIX) else ""
    if moved:
        base, digest = moved.base, moved.adapter_digest
    base = inference.deployments.find_base(base, digest)
    if base in ("", models.base) or (digest and digest == models.merged):
        return ""
    if is_forwarded:
        raise FailedPrecondition(
            Reason.NOT_SERVING,
            f"{model} is answered on the base {base}, and this replica has {models.base}. Retry in a minute.",
            field_violations={"model": "not served here"},
        )
    return base


def describe_replica(models: ModelServer, name: str, address: str) -> ReadyReplica:
    """What this replica serves now."""
    generations = {served.specialist: served.generation for served in models.table.all()}
    return ReadyReplica(name, models.base, time.time(), address, generations, models.merged)


def hand_over_moved(models: ModelServer, deployments: Deployments) -> None:
    """Leave the names that moved to another base to its replicas, once all of them serve the generation. Idempotent."""
    for name in models.table.moved():
        if deployments.serve(name):
            models.table.hand_over(name.specialist)
