"""Fixtures that several tests of training share."""

import pytest

from services.training.domain import Job
from tests.unit.training.fakes import make_job


@pytest.fixture
def job() -> Job:
    """A run's first worker."""
    return make_job()
