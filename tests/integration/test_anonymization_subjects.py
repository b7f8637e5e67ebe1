"""Finding people by name, mail or phone, and masking those who were erased; over PostgreSQL."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, Row, text

from services.anonymization.domain import NO_LABELS, Anonymized
from services.anonymization.handlers import anonymize_row
from services.anonymization.ports import Anonymizer
from services.anonymization.surrogates.people import People
from services.anonymization.surrogates.surrogates import Surrogates
from services.anonymization.vault.tables import ENTRIES
from tailor.errors import InvalidArgument
from tailor.rows import Rows
from tailor.values import Labels
from tests.barrier import MIGRATIONS, BarrierHouse
from tests.conftest import migrated

pytestmark = pytest.mark.integration


def replace(value: str, surrogates: Surrogates, people: People) -> str:
    if "@" in value:
        return surrogates.mail(value, people)
    if value[0] in "+0":
        return surrogates.other("PHONE_NUMBER", value)
    return surrogates.person(value, "", people)


class NameAnonymizer(Anonymizer):
    """Replaces Ngozi Okafor."""

    def __init__(self, surrogates: Surrogates) -> None:
        self._surrogates = surrogates

    def anonymize(self, texts: tuple[str, ...], labels: Labels = NO_LABELS, passed: tuple[str, ...] = ()) -> Anonymized:
        surrogates, people = self._surrogates.for_document("", []), People.of(["Ngozi Okafor"])
        name = surrogates.person("Ngozi Okafor", "", people)
        changed = tuple(text.replace("Ngozi Okafor", name) for text in texts)
        return Anonymized(changed, {"PERSON": 1}, values=frozenset(surrogates.issued))


class World(BarrierHouse):
    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.surrogates = Surrogates(self.vault, self.lexicon, b"d" * 32, self.subjects.suppressed)

    def write(self, document_id: str, *values: str) -> tuple[str, ...]:
        """Record a document that contains these values, and return their surrogates."""
        surrogates, people = self.surrogates.for_document("", []), People.of(values)
        texts = tuple(replace(value, surrogates, people) for value in values)
        self.subjects.keep(document_id, frozenset(surrogates.issued))
        return texts

    def entries(self) -> int:
        return Rows(self.engine, ENTRIES, Row).count()


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with migrated(database_url, MIGRATIONS) as engine:
        yield World(engine)


@pytest.mark.parametrize(
    ("subject", "documents"),
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
def test_a_person_is_found_by_name_mail_or_phone(world: World, subject: str, documents: tuple[str, ...]) -> None:
    world.write("doc_1", "Ngozi Okafor")
    world.write("doc_2", "NGOZI OKAFOR")
    world.write("doc_3", "n.okafor@kestrel.example", "+44 20 7946 0958")
    world.write("doc_4", "Ngozi Brown", "Peter Okafor")
    assert world.subjects.resolve(subject, dry_run=True).document_ids == documents


def test_a_row_that_comes_from_no_document_is_found_too(world: World) -> None:
    world.write("doc_1", "Ngozi Okafor")
    row_id = f"txt_{7:032x}"
    anonymizer = NameAnonymizer(world.surrogates)
    result = anonymize_row(anonymizer, world.subjects, row_id, ("Who is Ngozi Okafor?", "Nobody."), NO_LABELS)
    assert "Okafor" not in result.texts[0] and result.values
    assert world.subjects.resolve("Ngozi Okafor", dry_run=False).document_ids == ("doc_1", row_id)
    assert world.subjects.forget("doc_1") + world.subjects.forget(row_id) == 0
    assert world.subjects.resolve("Ngozi Okafor", dry_run=True).document_ids == ()


def test_an_erased_person_is_masked_in_every_form_without_new_vault_entries(world: World) -> None:
    world.write("doc_1", "Ngozi Okafor")
    resolved = world.subjects.resolve("Ngozi Okafor", dry_run=False)
    assert (resolved.document_ids, resolved.vault_entries) == (("doc_1",), 2)
    assert world.entries() == 0
    again = world.subjects.resolve("Ngozi Okafor", dry_run=False)
    assert (again.document_ids, again.vault_entries) == (("doc_1",), 0)
    texts = world.write("doc_2", "Ngozi Okafor", "Okafor", "ngozi.okafor@kestrel.example", "nokafor@kestrel.example")
    assert texts == ("[PERSON]", "[PERSON]", "[EMAIL_ADDRESS]", "[EMAIL_ADDRESS]")
    assert world.entries() == 0
    assert world.write("doc_3", "Ngozi Brown")[0] != "[PERSON]"


def test_a_dry_run_changes_nothing(world: World) -> None:
    (surrogate,) = world.write("doc_1", "Ngozi Okafor")
    assert world.subjects.resolve("Ngozi Okafor", dry_run=True).vault_entries == 2
    assert world.write("doc_2", "Ngozi Okafor") == (surrogate,)
    assert world.vault.reveal("PERSON", surrogate) == "Ngozi Okafor"


def test_forgetting_a_document_destroys_the_entries_that_no_other_needs(world: World) -> None:
    (surrogate,) = world.write("doc_1", "Ngozi Okafor")
    world.write("doc_2", "Peter Okafor")
    assert world.subjects.forget("doc_1") == 1
    assert world.vault.reveal("PERSON", surrogate.split()[1]) == "Okafor"
    assert world.subjects.forget("doc_1") == 0
    assert world.subjects.forget("doc_2") == 2
    assert world.entries() == 0


def test_another_replica_masks_at_once(world: World) -> None:
    other = World(world.engine)
    other.write("doc_1", "Ngozi Okafor")
    world.subjects.resolve("Ngozi Okafor", dry_run=False)
    assert other.write("doc_2", "Ngozi Okafor") == ("[PERSON]",)


def test_the_database_holds_nothing_readable_of_a_suppressed_person(world: World) -> None:
    world.write("doc_1", "Ngozi Okafor")
    world.subjects.resolve("Ngozi Okafor", dry_run=False)
    world.subjects.resolve("n.okafor@kestrel.example", dry_run=False)
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
    world.write("doc_1", value)
    world.subjects.resolve(subject, dry_run=False)
    assert other.write("doc_2", value)[0].startswith("[")
    assert other.subjects.lift(written)
    (surrogate,) = world.write("doc_3", value)
    assert not surrogate.startswith("[") and surrogate != value
    assert not world.subjects.lift(written)
    # The surrogate is the same as before, so a document that was not erased in the meantime is found too.
    assert world.subjects.resolve(subject, dry_run=True).document_ids == ("doc_1", "doc_3")


@pytest.mark.parametrize("subject", ["Okafor", "12 34"])
def test_rejects_a_subject_that_names_nobody(world: World, subject: str) -> None:
    with pytest.raises(InvalidArgument):
        world.subjects.resolve(subject, dry_run=True)
