"""A migrated database of synthetic, and its handlers over it."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from services.synthetic.bootstrap import MIGRATIONS
from tests.conftest import migrated
from tests.synthetic import World


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with migrated(database_url, MIGRATIONS) as engine:
        yield engine


@pytest.fixture
def world(engine: Engine) -> World:
    return World(engine)
