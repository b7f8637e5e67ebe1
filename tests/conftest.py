"""Shared fixtures: the embedded stores, started once for all tests that use them."""

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest
from sqlalchemy import Engine
from xdist.scheduler import LoadScopeScheduling

from tailor.local import secrets, stack
from tailor.local.database import SUPERUSER
from tailor.local.environment import Plan, service_environment
from tailor.local.layout import STORES
from tailor.local.secrets import ADMIN
from tailor.settings import ServiceSettings
from tailor.sql import connect, migrate

S = TypeVar("S", bound=ServiceSettings)


@dataclass(frozen=True)
class Stores:
    """A running broker, object store and database."""

    plan: Plan

    def environment(self, service: str) -> dict[str, str]:
        """The environment that `tailor up` would give the service."""
        return service_environment(service, self.plan, os.environ)

    def settings(self, service: str, settings_type: type[S]) -> S:
        """The service's settings with its own credentials."""
        prefix = "TAILOR_"
        fields: dict[str, Any] = {
            name.removeprefix(prefix).lower(): value
            for name, value in self.environment(service).items()
            if name.startswith(prefix)
        }
        return settings_type(**fields)


class _ByFile(LoadScopeScheduling):  # type: ignore[misc]
    """Runs the tests of one file on one worker, in order, and likewise all tests that share the end-to-end installation."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        # The demo starts its own stack.
        return "tests/e2e" if path.startswith("tests/e2e/") and not path.endswith("/test_demo.py") else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Distribute tests to workers by file. (xdist's own groups have no effect with pytest 9.2.)"""
    return _ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow folders first, so that no worker waits at the end for another's last long file."""
    slow = ("tests/e2e/", "tests/integration/")
    items.sort(key=lambda item: [not item.nodeid.startswith(folder) for folder in slow])


def plan_of(running: stack.Stack) -> Plan:
    """The plan of a running stack, including its secrets."""
    return Plan(running.layout, running.snapshot().ports, secrets.ensure(running.layout))


@pytest.fixture(scope="session")
def stores() -> Iterator[Stores]:
    """The embedded stores, in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="tailor-test-", ignore_cleanup_errors=True) as directory:
        root = Path(directory).resolve()
        running = stack.up(root, only=STORES)
        try:
            running.wait_ready(90)
            yield Stores(plan_of(running))
        finally:
            stack.down(root)


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A new empty database, on the server of TAILOR_DATABASE_URL (whose role must be allowed to create databases) or the embedded one."""
    admin = os.environ.get("TAILOR_DATABASE_URL") or _embedded_admin(request.getfixturevalue("stores"))
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(admin.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    yield f"{admin.rpartition('/')[0]}/{name}"
    with psycopg.connect(admin.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@contextmanager
def migrated(url: str, migrations: Path) -> Iterator[Engine]:
    """An engine of a service's database at its newest schema. Closed afterwards."""
    engine = connect(url)
    migrate(engine, migrations)
    yield engine
    engine.dispose()


def _embedded_admin(stores: Stores) -> str:
    password = stores.plan.secrets.database_password(ADMIN)
    return f"postgresql+psycopg://{SUPERUSER}:{password}@{stores.plan.ports.address('database')}/{SUPERUSER}"
