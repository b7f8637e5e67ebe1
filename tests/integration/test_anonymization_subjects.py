"""People who are found by what they are called, and masked once they were erased; over PostgreSQL."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from sqlalchemy import Engine, text

from services.anonymization.bootstrap import MIGRATIONS
from services.anonymization.domain import NO_LABELS, Anonymized, Labels
from services.anonymization.recognise.lexicon import Lexicon
from services.anonymization.surrogates.surrogates import People
from services.anonymization.vault.subject_tables import SqlSubjects
from services.anonymization.vault.subjects import NotedVault, NotingAnonymizer, RememberingSurrogates, SubjectIndex
from services.anonymization.vault.vault import SqlVault
from tailor.errors import InvalidArgument
from tests.conftest import migrated

pytestmark = pytest.mark.integration

LEXICON = Lexicon.load(["the"])
KEY = b"v" * 32


@dataclass
class NameReplacer:
    """Takes every text for one name."""

    surrogates: RememberingSurrogates

    def anonymize(self, texts: tuple[str, ...], labels: Labels = NO_LABELS) -> Anonymized:
        del labels
        people = People.of(texts)
        return Anonymized(tuple(self._replace(one, people) for one in texts), {"PERSON": len(texts)})

    def _replace(self, value: str, people: People) -> str:
        if "@" in value:
            return self.surrogates.mail(value, people)
        if value[0] in "+0":
            return self.surrogates.other("PHONE_NUMBER", value)
        return self.surrogates.person(value, "", people)


class World:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.vault = SqlVault(engine, KEY)
        self.index = SubjectIndex(SqlSubjects(engine), self.vault, LEXICON, b"s" * 32)
        noted = NotedVault(self.vault)
        self.anonymizer = NotingAnonymizer(
            NameReplacer(RememberingSurrogates(noted, LEXICON, b"d" * 32, self.index)), noted, self.index
        )

    def take(self, document_id: str, *values: str) -> tuple[str, ...]:
        result = self.anonymizer.anonymize(values)
        self.index.keep(document_id, result.values)
        return result.texts

    def entries(self) -> int:
        with self.engine.connect() as connection:
            return int(connection.execute(text("SELECT count(*) FROM entries")).scalar_one())


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with migrated(database_url, MIGRATIONS) as engine:
        yield World(engine)


@pytest.mark.parametrize(
    ("subject", "found"),
    [
        ("Ngozi Okafor", ("doc_1", "doc_2")),
        ("Dr Ngozi Okafor", ("doc_1", "doc_2")),
        ("Ngozi OKAFOR", ("doc_1", "doc_2")),
        ("n.okafor@kestrel.example", ("doc_3",)),
        ("N.Okafor@Kestrel.Example", ("doc_3",)),
        ("+44 20 7946 0958", ("doc_3",)),
        ("Tom Nobody", ()),
    ],
)
def test_a_person_is_found_by_name_mail_or_phone(world: World, subject: str, found: tuple[str, ...]) -> None:
    world.take("doc_1", "Ngozi Okafor")
    world.take("doc_2", "NGOZI OKAFOR")
    world.take("doc_3", "n.okafor@kestrel.example", "+44 20 7946 0958")
    world.take("doc_4", "Ngozi Brown", "Peter Okafor")
    assert world.index.resolve(subject, dry_run=True).document_ids == found


def test_an_erased_person_is_masked_in_every_form_and_no_entry_is_made_again(world: World) -> None:
    world.take("doc_1", "Ngozi Okafor")
    resolved = world.index.resolve("Ngozi Okafor", dry_run=False)
    assert (resolved.document_ids, resolved.vault_entries) == (("doc_1",), 2)
    assert world.entries() == 0
    again = world.index.resolve("Ngozi Okafor", dry_run=False)
    assert (again.document_ids, again.vault_entries) == (("doc_1",), 0)
    texts = world.take("doc_2", "Ngozi Okafor", "Okafor", "ngozi.okafor@kestrel.example", "nokafor@kestrel.example")
    assert texts == ("[PERSON]", "[PERSON]", "[EMAIL_ADDRESS]", "[EMAIL_ADDRESS]")
    assert world.entries() == 0
    assert world.take("doc_3", "Ngozi Brown")[0] != "[PERSON]"


def test_a_dry_run_keeps_everything(world: World) -> None:
    (surrogate,) = world.take("doc_1", "Ngozi Okafor")
    assert world.index.resolve("Ngozi Okafor", dry_run=True).vault_entries == 2
    assert world.take("doc_2", "Ngozi Okafor") == (surrogate,)
    assert world.vault.reveal("PERSON", surrogate) == "Ngozi Okafor"


def test_a_document_that_is_forgotten_takes_along_the_entries_that_no_other_needs(world: World) -> None:
    (surrogate,) = world.take("doc_1", "Ngozi Okafor")
    world.take("doc_2", "Peter Okafor")
    assert world.index.forget("doc_1") == 1
    assert world.vault.reveal("PERSON", surrogate.split()[1]) == "Okafor"
    assert world.index.forget("doc_1") == 0
    assert world.index.forget("doc_2") == 2
    assert world.entries() == 0


def test_another_replica_masks_as_soon_as_it_is_asked(world: World) -> None:
    other = World(world.engine)
    other.take("doc_1", "Ngozi Okafor")
    world.index.resolve("Ngozi Okafor", dry_run=False)
    assert other.take("doc_2", "Ngozi Okafor") == ("[PERSON]",)


def test_nothing_of_a_suppressed_person_stands_in_the_database(world: World) -> None:
    world.take("doc_1", "Ngozi Okafor")
    world.index.resolve("Ngozi Okafor", dry_run=False)
    world.index.resolve("n.okafor@kestrel.example", dry_run=False)
    with world.engine.connect() as connection:
        rows = [
            tuple(row) for name in ("suppressions", "occurrences") for row in connection.execute(text(f"TABLE {name}"))
        ]
    assert "okafor" not in str(rows).casefold()


@pytest.mark.parametrize(
    ("subject", "written", "value"),
    [
        ("Ngozi Okafor", "Dr Ngozi OKAFOR", "Ngozi Okafor"),
        ("n.okafor@kestrel.example", "N.Okafor@Kestrel.Example", "n.okafor@kestrel.example"),
        ("+44 20 7946 0958", "+442079460958", "+44 20 7946 0958"),
    ],
)
def test_a_lifted_value_has_a_surrogate_again_for_every_replica(
    world: World, subject: str, written: str, value: str
) -> None:
    other = World(world.engine)
    world.take("doc_1", value)
    world.index.resolve(subject, dry_run=False)
    assert other.take("doc_2", value)[0].startswith("[")
    assert other.index.lift(written)
    (surrogate,) = world.take("doc_3", value)
    assert not surrogate.startswith("[") and surrogate != value
    assert not world.index.lift(written)
    # The surrogate is drawn as it was before, so that a document that was not erased meanwhile is found too.
    assert world.index.resolve(subject, dry_run=True).document_ids == ("doc_1", "doc_3")


@pytest.mark.parametrize("subject", ["Okafor", "12 34"])
def test_refuses_what_names_nobody(world: World, subject: str) -> None:
    with pytest.raises(InvalidArgument):
        world.index.resolve(subject, dry_run=True)
