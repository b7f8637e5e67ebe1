"""Waiting until a promotion or rollback has reached every ready replica."""

import time

from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2, registry_pb2_grpc
from tailor.cli.calls import unary
from tailor.errors import Aborted, DeadlineExceeded, FailedPrecondition, Reason

POLL_SECONDS = 0.3
WAIT_SECONDS = 300.0


def reach_all(
    registry: registry_pb2_grpc.RegistryServiceStub,
    decided: models_pb2.SpecialistServing,
    seconds: float = WAIT_SECONDS,
) -> None:
    """Block until every ready replica serves the generation.

    FailedPrecondition where a replica refuses it, Aborted where another generation came, DeadlineExceeded where time is up.
    """
    end = time.monotonic() + seconds
    request = registry_pb2.GetSpecialistRequest(name=decided.specialist)
    while True:
        serving = unary("registry", registry.GetSpecialist, request).serving
        if serving.decision.generation > decided.generation:
            raise Aborted(Reason.GENERATION_MOVED, f"Generation {serving.decision.generation} came meanwhile.")
        if serving.finished:
            return
        refused = [f"{one.replica}: {one.reason}" for one in serving.rollout if one.reason]
        if refused:
            raise FailedPrecondition(
                Reason.ROLLOUT_REFUSED,
                f"Generation {decided.generation} is refused by {', '.join(refused)}; what served before goes on there.",
            )
        if time.monotonic() >= end:
            waiting = [one.replica for one in serving.rollout if not one.serving]
            raise DeadlineExceeded(
                Reason.ROLLOUT_UNFINISHED,
                f"Generation {decided.generation} does not serve yet on {', '.join(waiting) or 'any replica: none is ready'}.",
            )
        time.sleep(POLL_SECONDS)
