"""Waiting until a promotion or rollback has reached every ready replica."""

import time

from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2, registry_pb2_grpc
from tailor.errors import Aborted, DeadlineExceeded, FailedPrecondition, Reason

POLL_SECONDS = 0.3
WAIT_SECONDS = 300.0


def wait_for_rollout(
    registry: registry_pb2_grpc.RegistryServiceStub,
    decision: models_pb2.SpecialistServing,
    seconds: float = WAIT_SECONDS,
) -> None:
    """Block until every ready replica serves the decision's generation.

    Raises FailedPrecondition if a replica refuses it, Aborted if a newer generation replaces it, DeadlineExceeded after `seconds`.
    """
    end = time.monotonic() + seconds
    request = registry_pb2.GetSpecialistRequest(name=decision.specialist)
    generation = decision.generation
    while True:
        serving = registry.GetSpecialist(request).serving
        if serving.decision.generation > generation:
            text = f"Generation {serving.decision.generation} replaced generation {generation} during the rollout."
            raise Aborted(Reason.GENERATION_MOVED, text)
        if serving.finished:
            return
        refusals = [f"{replica.replica} ({replica.reason})" for replica in serving.rollout if replica.reason]
        if refusals:
            text = f"Generation {generation} is refused by {', '.join(refusals)}; these replicas keep the previous adapter."
            raise FailedPrecondition(Reason.ROLLOUT_REFUSED, text)
        if time.monotonic() >= end:
            waiting = ", ".join(replica.replica for replica in serving.rollout if not replica.serving)
            text = f"After {seconds:g} s, generation {generation} is not served by {waiting or 'any replica; none is ready'}."
            raise DeadlineExceeded(Reason.ROLLOUT_UNFINISHED, text)
        time.sleep(POLL_SECONDS)
