"""Rotating the vault's key, and replicas that draw at the same time, over PostgreSQL."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert, select, text

from services.anonymization.bootstrap import MIGRATIONS
from services.anonymization.vault.keyring import DRAW, INDEX, Keyring, entry_place, rotate
from services.anonymization.vault.tables import ENTRIES, SECRETS
from services.anonymization.vault.vault import SqlVault
from tailor.errors import FailedPrecondition
from tests.conftest import migrated
from tests.integration.vault_values import VALUES
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
OLD, NEW, NEWEST = b"o" * 32, b"n" * 32, b"z" * 32


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with migrated(database_url, MIGRATIONS) as engine:
        yield engine


def issue(vault: SqlVault, count: int) -> dict[str, str]:
    def issue_one(n: int) -> str:
        return vault.issue("IBAN", f"value {n}", f"value {n}", lambda attempt: f"surrogate {n}-{attempt}")

    return {f"value {n}": issue_one(n) for n in range(count)}


def keys_of(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT key_id, count(*) FROM entries GROUP BY key_id")).all()
    return {row[0]: row[1] for row in rows}


@pytest.mark.release
def test_four_processes_draw_the_same_surrogates_for_two_hundred_values(engine: Engine, database_url: str) -> None:
    SqlVault(engine, OLD)
    command = [sys.executable, str(ROOT / "tests" / "integration" / "vault_drawer.py"), database_url, OLD.hex()]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    replicas = [
        subprocess.Popen(
            [*command, str(seed)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        for seed in range(4)
    ]
    for replica in replicas:
        assert replica.stdout is not None and replica.stdout.readline() == "ready\n"
    for replica in replicas:
        assert replica.stdin is not None
        replica.stdin.write("go\n")
        replica.stdin.flush()
    drawn = [json.loads(replica.communicate(timeout=120)[0]) for replica in replicas]
    assert len(VALUES) == len(set(VALUES)) == 200
    assert drawn[0] == drawn[1] == drawn[2] == drawn[3]
    assert len(set(drawn[0].values())) == 200 and not set(drawn[0]) & set(drawn[0].values())


def test_a_rotated_vault_gives_the_same_surrogates_and_values_with_only_the_new_key(engine: Engine) -> None:
    old = SqlVault(engine, OLD)
    issued = issue(old, 30)
    between = SqlVault(engine, NEW, [OLD])
    assert issue(between, 40).items() >= issued.items()
    assert between.reveal("IBAN", issued["value 3"]) == "value 3"
    assert rotate(engine, Keyring(NEW, [OLD]), batch=7) == {"entries": 30, "secrets": 3, "left": 0}
    assert rotate(engine, Keyring(NEW, [OLD])) == {"entries": 0, "secrets": 0, "left": 0}
    new = SqlVault(engine, NEW)
    assert issue(new, 40).items() >= issued.items()
    assert [new.reveal("IBAN", issued[f"value {n}"]) for n in range(30)] == [f"value {n}" for n in range(30)]
    assert (new.secret(INDEX), new.secret(DRAW)) == (old.secret(INDEX), old.secret(DRAW))
    rotate(engine, Keyring(NEWEST, [NEW, OLD]))
    assert SqlVault(engine, NEWEST).reveal("IBAN", issued["value 3"]) == "value 3"


def test_a_replica_with_the_old_key_works_while_the_vault_is_rotated(engine: Engine) -> None:
    old, new = SqlVault(engine, OLD), SqlVault(engine, NEW, [OLD])
    first = issue(old, 5)
    rotate(engine, Keyring(NEW, [OLD]))
    assert issue(old, 10).items() >= first.items()
    assert issue(new, 10) == issue(old, 10)
    assert rotate(engine, Keyring(NEW, [OLD])) == {"entries": 5, "secrets": 0, "left": 0}


@pytest.mark.parametrize(("key", "previous"), [(NEW, []), (NEW, [NEWEST])])
def test_a_vault_does_not_open_without_the_keys_of_its_entries(
    engine: Engine, key: bytes, previous: list[bytes]
) -> None:
    issue(SqlVault(engine, OLD), 1)
    with pytest.raises(FailedPrecondition, match="VAULT_KEY_DIFFERS"):
        SqlVault(engine, key, previous)
    with pytest.raises(FailedPrecondition, match="VAULT_KEY_DIFFERS"):
        rotate(engine, Keyring(key, previous))


def test_a_killed_rotation_loses_nothing_and_can_be_continued(engine: Engine, database_url: str) -> None:
    count = 6_000
    _fill(engine, Keyring(OLD), count)
    SqlVault(engine, OLD)
    command = [sys.executable, "-m", "services.anonymization.rotate"]
    environment = os.environ | {
        "TAILOR_DATABASE_URL": database_url,
        "TAILOR_VAULT_KEY": base64.b64encode(NEW).decode(),
        "TAILOR_VAULT_PREVIOUS_KEYS": base64.b64encode(OLD).decode(),
        "TAILOR_QUARANTINE_KEY": base64.b64encode(OLD).decode(),
    }
    rotation = subprocess.Popen(command, env=environment, cwd=ROOT)
    new = Keyring(NEW, [OLD])
    with engine.connect() as connection:
        # It cannot end before it is killed.
        connection.execute(select(ENTRIES).where(ENTRIES.c.value_hash.endswith("7")).with_for_update())
        connection.execute(select(SECRETS).with_for_update())
        wait_until(lambda: keys_of(engine).get(new.current_id))
        assert rotation.poll() is None
        rotation.kill()
        rotation.wait()
    half = keys_of(engine)
    assert set(half) == {new.current_id, Keyring(OLD).current_id} and sum(half.values()) == count
    assert _values(engine, NEW, [OLD]) == {f"value {n}" for n in range(count)}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"entries": half[Keyring(OLD).current_id], "secrets": 3, "policies": 0, "left": 0}
    assert _values(engine, NEW, []) == {f"value {n}" for n in range(count)}


def _fill(engine: Engine, keys: Keyring, count: int) -> None:
    rows = []
    for n in range(count):
        sealed = keys.seal(f"value {n}".encode(), entry_place("IBAN", f"hash {n}"))
        row = {"entity_type": "IBAN", "value_hash": f"hash {n}", "surrogate": f"surrogate {n}"}
        rows.append({**row, **vars(sealed)})
    with engine.begin() as connection:
        connection.execute(insert(ENTRIES), rows)


def _values(engine: Engine, key: bytes, previous: list[bytes]) -> set[str]:
    keys = Keyring(key, previous)
    with engine.connect() as connection:
        rows = connection.execute(select(ENTRIES)).all()
    return {keys.open(row, entry_place(row.entity_type, row.value_hash)).decode() for row in rows}
