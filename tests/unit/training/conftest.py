"""Fixtures that several tests of training share."""

import pytest

from services.training import pipeline
from services.training.domain import Job
from tests.unit.training.fakes import House, built


@pytest.fixture
def job() -> Job:
    """The first job that the supervisor starts for a new dataset."""
    house = House()
    pipeline.queue_run_for_dataset(house.ports, built())
    house.supervisor.tick()
    return house.launcher.started[0]
