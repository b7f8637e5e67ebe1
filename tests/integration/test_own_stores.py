"""Own stores as parts of a stack: made by Tailor as their administrator, or awaited until an administrator has made it."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from kafka.admin import KafkaAdminClient

from tailor.events.access import KafkaNames, rules
from tailor.events.topics import load_topics
from tailor.local import stack
from tailor.local.layout import BROKER, DATABASE, STORE
from tailor.local.own_stores import parse_own_stores
from tailor.local.secrets import ADMIN
from tailor.local.store_access import kafka_settings
from tests.conftest import Stores, plan_of
from tests.real.kinds import StoreKind
from tests.real.page import blocks, checkout, fill, let_administrator_use_scram, run
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

Tables = Mapping[str, Mapping[str, Any]]


@pytest.fixture(scope="module")
def tables(store_kind: StoreKind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tables]:
    """Apache Kafka and MinIO that nobody has prepared; Kafka's administrator may sign in by SCRAM too."""
    if store_kind.name == "embedded":
        pytest.skip("needs Apache Kafka and MinIO; `make test-real` runs these")
    with store_kind.run(tmp_path_factory.mktemp("own")) as described:
        let_administrator_use_scram(described)
        yield described


def _without_administrator(tables: Tables) -> dict[str, dict[str, Any]]:
    return {
        name: {field: value for field, value in table.items() if not field.startswith("admin_")}
        for name, table in tables.items()
    }


def test_without_an_administrator_it_waits_until_one_has_run_the_pages_commands(tables: Tables, tmp_path: Path) -> None:
    folder = checkout(tmp_path / "checkout")
    state = folder / ".tailor"
    try:
        running = stack.up(state, only=(BROKER, STORE), own_stores=_without_administrator(tables))
        parts = wait_until(
            lambda: [part for part in running.snapshot().components.values() if "your own: " in part.detail][1:], 60
        )
        assert {part.state for part in parts} == {"waiting"}
        block = next(code for code in blocks("sh") if "deploy.init.topics" in code)
        one = {"TAILOR_KAFKA_REPLICATION_FACTOR": "1", "TAILOR_KAFKA_MIN_INSYNC_REPLICAS": "1"}
        done = run(folder, fill(block, tables), 120, **one)
        assert done.returncode == 0, done.stderr
        running.wait_ready(600)
        assert all(part.detail == "your own" for part in running.snapshot().components.values())
    finally:
        stack.down(state)


def test_the_administrators_rules_are_exactly_the_listed_ones(tables: Tables, tmp_path: Path) -> None:
    try:
        running = stack.up(tmp_path / "state", only=(BROKER, STORE), own_stores=tables)
        running.wait_ready(600)
        assert "broker" not in {path.name for path in (tmp_path / "state").iterdir()}, (
            "the embedded broker does not start"
        )
        admin_settings = Stores(plan_of(running)).kafka_admin
        with closing(KafkaAdminClient(**admin_settings.kafka_arguments())) as admin:
            topics = {name for name in admin.list_topics() if not name.startswith("__")}
        assert topics == set(load_topics())
        assert len(rules(load_topics().values(), KafkaNames())) < 139
        publisher = kafka_settings(plan_of(running).stores.kafka("publisher"))
        with closing(KafkaAdminClient(**publisher.kafka_arguments())) as client:
            assert set(client.list_topics()) == {"document.submitted.v1"}
    finally:
        stack.down(tmp_path / "state")


def test_the_pages_table_is_valid() -> None:
    import tomllib

    (table,) = blocks("toml")
    own = parse_own_stores(tomllib.loads(table)["stores"], Path("own-stores.md"))
    assert own.kafka is not None and own.s3 is not None and own.database is not None
    assert own.kafka.replication_factor == 3 and own.kafka.min_insync_replicas == 2


def test_an_own_database_gets_roles_and_the_embedded_one_does_not_start(tmp_path: Path) -> None:
    try:
        other = stack.up(tmp_path / "other", only=(DATABASE,))
        other.wait_ready(600)
        plan = plan_of(other)
        table = {
            "address": plan.ports.address("database"),
            "admin_password": plan.secrets.database_password(ADMIN),
        }
        running = stack.up(tmp_path / "state", only=(DATABASE,), own_stores={"database": table})
        running.wait_ready(600)
        assert running.snapshot().components[DATABASE].process is None
        url = plan_of(running).stores.database_url("registry").replace("+psycopg", "")
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT current_user").fetchone() == ("registry",)
    finally:
        stack.down(tmp_path / "state")
        stack.down(tmp_path / "other")
