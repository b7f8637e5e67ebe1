"""Which replicas count, and when a promotion is finished."""

from datetime import UTC, datetime, timedelta

import pytest

from services.registry.rollouts import Reached, Replica, is_finished

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def replica(name: str = "inference-0", seconds: float = 0, *, leaving: bool = False) -> Replica:
    return Replica(name, "tiny", NOW - timedelta(seconds=seconds), leaving)


@pytest.mark.parametrize(
    ("said", "ready"),
    [
        (replica(), True),
        (replica(seconds=29), True),
        (replica(seconds=30), False),
        (replica(leaving=True), False),
        # Clocks differ by moments.
        (replica(seconds=-2), True),
    ],
)
def test_a_replica_is_ready_that_spoke_lately_and_does_not_leave(said: Replica, ready: bool) -> None:
    assert said.is_ready(NOW) is ready


@pytest.mark.parametrize(
    ("rollout", "finished"),
    [
        ([], False),
        ([Reached(replica(), serving=True)], True),
        ([Reached(replica(), serving=True), Reached(replica("inference-1"))], False),
        ([Reached(replica(), serving=True), Reached(replica("inference-1"), refusal="WRONG_BASE")], False),
    ],
)
def test_a_promotion_is_finished_once_every_ready_replica_serves_it(rollout: list[Reached], finished: bool) -> None:
    assert is_finished(rollout) is finished
