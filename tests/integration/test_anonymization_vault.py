"""The vault and its keys, and replicas that draw at the same time, over PostgreSQL."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert, select, text

from services.anonymization.recognise.lexicon import Lexicon
from services.anonymization.surrogates.people import People
from services.anonymization.surrogates.surrogates import Surrogates
from services.anonymization.vault.keyring import DRAW, INDEX, Keyring, entry_place, rotate
from services.anonymization.vault.tables import ENTRIES, SECRETS
from services.anonymization.vault.vault import SqlVault
from tailor.errors import FailedPrecondition, ResourceExhausted
from tests.barrier import MIGRATIONS
from tests.conftest import migrated
from tests.integration.vault_values import VALUES
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

KEY = b"v" * 32


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with migrated(database_url, MIGRATIONS) as engine:
        yield engine


def test_concurrent_replicas_issue_one_surrogate_per_value_and_none_twice(engine: Engine) -> None:
    lexicon = Lexicon.load(["the"])
    replicas = [Surrogates(SqlVault(engine, KEY), lexicon, b"s" * 32) for _ in range(4)]
    names = [f"Zora{letter} Quill{other}" for letter in "abcdefgh" for other in "abcdefgh"]
    with ThreadPoolExecutor(4) as pool:
        issued = list(pool.map(lambda pair: replicas[pair[0] % 4].person(pair[1], "", People()), enumerate(names * 4)))
    by_name = {
        name: {surrogate for other, surrogate in zip(names * 4, issued, strict=True) if other == name} for name in names
    }
    assert all(len(surrogates) == 1 for surrogates in by_name.values())
    assert len({surrogate for surrogates in by_name.values() for surrogate in surrogates}) == len(names)


def test_a_taken_surrogate_is_not_issued_again(engine: Engine) -> None:
    vault = SqlVault(engine, KEY)
    assert vault.issue("IBAN", "a", "true a", lambda n: f"candidate {n}") == "candidate 0"
    assert vault.issue("IBAN", "b", "true b", lambda n: f"candidate {n}") == "candidate 1"
    assert vault.issue("PHONE_NUMBER", "b", "true b", lambda n: f"candidate {n}") == "candidate 0"
    with pytest.raises(ResourceExhausted):
        vault.issue("IBAN", "c", "true c", lambda _: "candidate 0")


def test_a_known_true_value_is_never_issued(engine: Engine) -> None:
    vault = SqlVault(engine, KEY)
    vault.issue("PERSON_FAMILY", "ward", "Ward", lambda _: "Hale")
    assert vault.issue("PERSON_FAMILY", "okafor", "Okafor", lambda n: ("Okafor", "Ward", "Holt")[n]) == "Holt"


def test_true_values_can_be_revealed_and_are_stored_encrypted(engine: Engine) -> None:
    vault = SqlVault(engine, KEY)
    surrogates = Surrogates(vault, Lexicon.load(["the"]), b"s" * 32)
    name = surrogates.person("Ngozi Okafor", "", People())
    assert SqlVault(engine, KEY).reveal("PERSON", name) == "Ngozi Okafor"
    assert vault.reveal("PERSON", name.split()[1]) == "Okafor"
    assert vault.reveal("PERSON", "Nobody Known") is None
    address = surrogates.address("41 Quarry Lane, Tarnbridge TB4 2QN")
    assert vault.reveal("ADDRESS", address.replace(", ", "\n", 1)) == "41 Quarry Lane, Tarnbridge TB4 2QN"
    with engine.connect() as connection:
        rows = str([tuple(row) for row in connection.execute(text("SELECT * FROM entries"))])
    assert "Okafor" not in rows and "Quarry" not in rows
    with pytest.raises(FailedPrecondition):
        stranger = SqlVault(engine, b"w" * 32)
        stranger.reveal("PERSON_FAMILY", name.split()[1])


@pytest.mark.parametrize(
    ("kind", "value", "other"),
    [
        ("PHONE_NUMBER", "+44 20 7946 0112", "020 7946 0112"),
        ("IBAN", "GB33 BUKB 2020 1555 5555 55", "GB33BUKB20201555555555"),
        ("DATE_OF_BIRTH", "3 November 1996", "1996-11-03"),
    ],
)
def test_a_surrogate_in_another_spelling_reveals_the_same_value(
    engine: Engine, kind: str, value: str, other: str
) -> None:
    vault = SqlVault(engine, KEY)
    surrogates = Surrogates(vault, Lexicon.load(["the"]), b"s" * 32)
    first, second = surrogates.other(kind, value), surrogates.other(kind, other)
    assert first != second
    assert vault.reveal(kind, first) == vault.reveal(kind, second) == value


def test_a_surrogate_in_capitals_reveals_the_value(engine: Engine) -> None:
    vault = SqlVault(engine, KEY)
    surrogates = Surrogates(vault, Lexicon.load(["the"]), b"s" * 32)
    assert vault.reveal("PERSON", surrogates.person("NGOZI OKAFOR", "", People())) == "NGOZI OKAFOR"
    assert vault.reveal("EMAIL_ADDRESS", surrogates.mail("N.OKAFOR@FIRM.COM", People())) == "N.OKAFOR@FIRM.COM"
    assert vault.issue("PERSON_GIVEN", "ngozi 2", "Ngozi", lambda _: "Élodie") == "Élodie"
    assert vault.reveal("PERSON_GIVEN", "Élodie") == "Ngozi"
    address = surrogates.address("41 QUARRY LANE, TARNBRIDGE TB4 2QN")
    assert vault.reveal("ADDRESS", address) == "41 QUARRY LANE, TARNBRIDGE TB4 2QN"


ROOT = Path(__file__).parents[2]
OLD, NEW, NEWEST = b"o" * 32, b"n" * 32, b"z" * 32


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
