"""Counting the true values of documents in texts, over PostgreSQL and the real language model."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from services.anonymization import handlers
from services.anonymization.anonymizer import TextAnonymizer
from services.anonymization.bootstrap import MIGRATIONS
from services.anonymization.ledger import SqlAuditLog
from services.anonymization.recognise.analyzer import Analyzer
from services.anonymization.surrogates.surrogates import Surrogates
from services.anonymization.vault.subjects import SubjectIndex
from services.anonymization.vault.true_values import TrueValueFinder
from services.anonymization.vault.vault import SqlVault
from tests.analyzers import load_english
from tests.conftest import migrated

pytestmark = pytest.mark.integration

KEY = b"v" * 32
LETTER = """Ms Ngozi Okafor (n.okafor@vanterpool.example, +44 20 7946 0018) signed for Vanterpool Meridian Logistics BV.
Pay to IBAN GB82 WEST 1234 5698 7654 32. Okafor lives at 41 Quarry Lane, Tarnbridge TB4 2QN. Her code is HL-EMP-20417."""
OTHER = "Mr Tom Brackenbury (tom.brackenbury@fjordline.example) agreed to pay by 3 May."


class Barrier:
    """The barrier's parts over one database."""

    def __init__(self, engine: Engine, analyzer: Analyzer) -> None:
        vault = SqlVault(engine, KEY)
        self.engine = engine
        self.subjects = SubjectIndex(engine, vault, analyzer.lexicon)
        surrogates = Surrogates(vault, analyzer.lexicon, b"d" * 32, self.subjects.suppressed)
        self.anonymizer = TextAnonymizer(analyzer, surrogates)
        self.finder = TrueValueFinder(engine, vault, analyzer)

    def write(self, document_id: str, content: str) -> str:
        """Take a document through the barrier, and return its text."""
        result = self.anonymizer.anonymize((content,))
        self.subjects.keep(document_id, result.values)
        return result.texts[0]

    def count(
        self, *texts: str, known: tuple[str, ...] = (), documents: tuple[str, ...] = ("doc_1",)
    ) -> dict[str, int]:
        """The true values of the documents in the texts."""
        return handlers.count_true_values(
            self.finder,
            SqlAuditLog(self.engine),
            caller="evaluation",
            texts=texts,
            known_texts=known,
            document_ids=[documents],
        )


@pytest.fixture(scope="module")
def analyzer() -> Analyzer:
    return load_english()


@pytest.fixture
def barrier(database_url: str, analyzer: Analyzer) -> Iterator[Barrier]:
    with migrated(database_url, MIGRATIONS) as engine:
        yield Barrier(engine, analyzer)


def test_every_true_value_of_a_document_is_found(barrier: Barrier) -> None:
    barrier.write("doc_1", LETTER)
    assert barrier.count(LETTER) == {
        "PERSON": 1,
        "CLIENT": 1,
        "EMAIL_ADDRESS": 1,
        "PHONE_NUMBER": 1,
        "IBAN": 1,
        "ADDRESS": 1,
        "EMPLOYEE_CODE": 1,
    }


@pytest.mark.parametrize(
    ("answer", "counts"),
    [
        ("so okafor said: call 020 7946 0018", {"PHONE_NUMBER": 1}),
        ("The engineer Ngozi Okafor wrote it, and Ngozi Okafor read it.", {"PERSON": 1}),
        ("NGOZI OKAFOR", {"PERSON": 1}),
        ("gb82west12345698765432", {"IBAN": 1}),
        ("Okafor wrote to Vanterpool about the lane.", {}),
        ("Peter Okafor and Ngozi Brown met.", {}),
    ],
)
def test_a_value_is_found_in_other_spellings_and_not_by_a_part_of_it(
    barrier: Barrier, answer: str, counts: dict[str, int]
) -> None:
    barrier.write("doc_1", LETTER)
    assert barrier.count(answer) == counts


def test_the_text_behind_the_barrier_has_no_true_value(barrier: Barrier) -> None:
    clean = barrier.write("doc_1", LETTER)
    assert barrier.count(clean) == {}


def test_values_of_other_documents_do_not_count(barrier: Barrier) -> None:
    barrier.write("doc_1", LETTER)
    barrier.write("doc_2", OTHER)
    assert barrier.count(LETTER, OTHER, documents=("doc_2", "doc_3")) == {"PERSON": 1, "EMAIL_ADDRESS": 1}
    assert barrier.count(LETTER, documents=()) == {}


def test_values_of_known_texts_do_not_count(barrier: Barrier) -> None:
    barrier.write("doc_1", LETTER)
    assert barrier.count("Write to Ngozi Okafor.", known=("What did Ngozi Okafor sign?",)) == {}


def test_a_value_that_is_also_a_surrogate_of_the_documents_does_not_count(barrier: Barrier) -> None:
    clean = barrier.write("doc_1", "Ms Ngozi Okafor signed.")
    surrogate = clean.removeprefix("Ms ").removesuffix(" signed.")
    barrier.write("doc_2", f"Dear {surrogate}, please sign.")
    assert barrier.count(f"{surrogate} signed.", documents=("doc_1", "doc_2")) == {}
    assert barrier.count(f"{surrogate} signed.", documents=("doc_2",)) == {"PERSON": 1}


def test_a_call_is_audited_without_texts_and_stores_nothing(barrier: Barrier) -> None:
    barrier.write("doc_1", LETTER)
    before = _dump(barrier.engine, "entries"), _dump(barrier.engine, "occurrences")
    barrier.count("Ngozi Okafor and Zelda Unheard", "Nothing.")
    assert (_dump(barrier.engine, "entries"), _dump(barrier.engine, "occurrences")) == before
    (record,) = _dump(barrier.engine, "audit")
    assert record[1:5] == ("evaluation", "TRUE_VALUES", "", "counts true values in 2 answers of a model")


def _dump(engine: Engine, table: str) -> list[tuple[object, ...]]:
    with engine.connect() as connection:
        return sorted(map(tuple, connection.execute(text(f"SELECT * FROM {table}"))))
