"""Which replicas are ready, and when a promotion is finished."""

from datetime import UTC, datetime, timedelta

import pytest

from services.registry.domain import Replica, ReplicaRollout
from services.registry.rules.rollout import is_finished

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def replica(name: str = "inference-0", seconds: float = 0, *, leaving: bool = False) -> Replica:
    return Replica(name, "tiny", NOW - timedelta(seconds=seconds), leaving)


@pytest.mark.parametrize(
    ("report", "ready"),
    [
        (replica(), True),
        (replica(seconds=29), True),
        (replica(seconds=30), False),
        (replica(leaving=True), False),
        # Clocks differ slightly.
        (replica(seconds=-2), True),
    ],
)
def test_a_replica_is_ready_if_it_reported_recently_and_is_not_leaving(report: Replica, ready: bool) -> None:
    assert report.is_ready(NOW) is ready


@pytest.mark.parametrize(
    ("rollout", "finished"),
    [
        ([], False),
        ([ReplicaRollout(replica(), serving=True)], True),
        ([ReplicaRollout(replica(), serving=True), ReplicaRollout(replica("inference-1"))], False),
        (
            [ReplicaRollout(replica(), serving=True), ReplicaRollout(replica("inference-1"), refusal="WRONG_BASE")],
            False,
        ),
    ],
)
def test_a_promotion_is_finished_once_every_ready_replica_serves_it(
    rollout: list[ReplicaRollout], finished: bool
) -> None:
    assert is_finished(rollout) is finished
