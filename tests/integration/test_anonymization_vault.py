"""The vault over PostgreSQL."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, text

from services.anonymization.recognise.lexicon import Lexicon
from services.anonymization.surrogates.people import People
from services.anonymization.surrogates.surrogates import Surrogates
from services.anonymization.vault.vault import SqlVault
from tailor.errors import FailedPrecondition, ResourceExhausted
from tests.barrier import MIGRATIONS
from tests.conftest import migrated

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
