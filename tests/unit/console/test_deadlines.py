"""How long the console's calls may take."""

from typing import Any

import pytest

from services.console.clients import DEFAULT_SECONDS, SECONDS
from tailor.api.training.v1 import training_pb2
from tailor.errors import DeadlineExceeded
from tailor.rpc.methods import all_methods
from tests.unit.console.fake_models import FakeTraining
from tests.unit.console.messages import RUN
from tests.unit.console.world import World
from tests.waiting import wait_until


def test_a_call_ends_after_the_seconds_of_its_method_or_its_own() -> None:
    left: list[float] = []

    class Timed(FakeTraining):
        def GetRun(self, request: Any, context: Any) -> Any:
            left.append(context.time_remaining())
            return super().GetRun(request, context)

        def CancelRun(self, request: Any, context: Any) -> Any:
            left.append(context.time_remaining())
            return super().CancelRun(request, context)

        def WatchRun(self, request: Any, context: Any) -> Any:
            wait_until(lambda: not context.is_active())
            yield training_pb2.WatchRunResponse()

    world = World(training=Timed())  # type: ignore[abstract]  # only what the console calls
    training = world.services.training
    training.GetRun(training_pb2.GetRunRequest(run_id=RUN))
    training.CancelRun(training_pb2.CancelRunRequest(run_id=RUN))
    training.GetRun(training_pb2.GetRunRequest(run_id=RUN), timeout=600)
    expected = (DEFAULT_SECONDS, SECONDS["CancelRun"], 600)
    assert left == pytest.approx(expected, abs=3)
    with pytest.raises(DeadlineExceeded):
        list(training.WatchRun(training_pb2.WatchRunRequest(run_id=RUN), timeout=0.1))


def test_every_deadline_is_that_of_a_method() -> None:
    assert SECONDS.keys() - {"Check"} <= {method.name for method in all_methods()}
