"""Counting the true values of documents in texts, over PostgreSQL and the real language model."""

from collections.abc import Iterator, Sequence

import pytest
from sqlalchemy import Engine, text

from services.anonymization import domain, handlers
from services.anonymization.anonymizer import TextAnonymizer
from services.anonymization.ledger import SqlAuditLog
from services.anonymization.recognise.analyzer import Analyzer
from services.anonymization.surrogates.surrogates import Surrogates
from services.anonymization.vault.true_values import TrueValueFinder
from tailor.errors import InvalidArgument, Reason
from tests.analyzers import load_english
from tests.barrier import MIGRATIONS, BarrierHouse
from tests.conftest import migrated

pytestmark = pytest.mark.integration

LETTER = """Ms Ngozi Okafor (n.okafor@vanterpool.example, +44 20 7946 0018) signed for Vanterpool Meridian Logistics BV.
Pay to IBAN GB82 WEST 1234 5698 7654 32. Okafor lives at 41 Quarry Lane, Tarnbridge TB4 2QN. Her code is HL-EMP-20417."""
OTHER = "Mr Tom Brackenbury (tom.brackenbury@fjordline.example) agreed to pay by 3 May."


class House(BarrierHouse):
    """The barrier with the real recognisers."""

    def __init__(self, engine: Engine, analyzer: Analyzer) -> None:
        super().__init__(engine, analyzer.lexicon)
        surrogates = Surrogates(self.vault, analyzer.lexicon, b"d" * 32, self.subjects.suppressed)
        self.anonymizer = TextAnonymizer(analyzer, surrogates)
        self.finder = TrueValueFinder(self.vault, analyzer)

    def write(self, document_id: str, content: str) -> str:
        """Take a document through the barrier, and return its text."""
        result = self.anonymizer.anonymize((content,))
        self.subjects.keep(document_id, result.values)
        return result.texts[0]

    def count(
        self, *texts: str, known: tuple[str, ...] = (), documents: tuple[str, ...] = ("doc_1",)
    ) -> dict[str, int]:
        """The true values of the documents in the texts."""
        return self.count_in([[*documents]], texts, known)

    def count_in(self, batches: list[list[str]], texts: Sequence[str], known: tuple[str, ...] = ()) -> dict[str, int]:
        audit = SqlAuditLog(self.engine)
        return handlers.count_true_values(
            self.finder, audit, caller="evaluation", texts=texts, known_texts=known, document_ids=batches
        )


@pytest.fixture(scope="module")
def analyzer() -> Analyzer:
    return load_english()


@pytest.fixture
def barrier(database_url: str, analyzer: Analyzer) -> Iterator[House]:
    with migrated(database_url, MIGRATIONS) as engine:
        yield House(engine, analyzer)


def test_every_true_value_of_a_document_is_found(barrier: House) -> None:
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
    barrier: House, answer: str, counts: dict[str, int]
) -> None:
    barrier.write("doc_1", LETTER)
    assert barrier.count(answer) == counts


def test_the_text_behind_the_barrier_has_no_true_value(barrier: House) -> None:
    clean = barrier.write("doc_1", LETTER)
    assert barrier.count(clean) == {}


def test_values_of_other_documents_do_not_count(barrier: House) -> None:
    barrier.write("doc_1", LETTER)
    barrier.write("doc_2", OTHER)
    assert barrier.count(LETTER, OTHER, documents=("doc_2", "doc_3")) == {"PERSON": 1, "EMAIL_ADDRESS": 1}
    assert barrier.count(LETTER, documents=()) == {}
    assert barrier.count_in([["doc_1"], ["doc_2", "doc_1"]], (LETTER, OTHER, LETTER))["PERSON"] == 2


def test_values_of_known_texts_do_not_count(barrier: House) -> None:
    barrier.write("doc_1", LETTER)
    assert barrier.count("Write to Ngozi Okafor.", known=("What did Ngozi Okafor sign?",)) == {}


def test_a_value_that_is_also_a_surrogate_of_the_documents_does_not_count(barrier: House) -> None:
    clean = barrier.write("doc_1", "Ms Ngozi Okafor signed.")
    surrogate = clean.removeprefix("Ms ").removesuffix(" signed.")
    barrier.write("doc_2", f"Dear {surrogate}, please sign.")
    assert barrier.count(f"{surrogate} signed.", documents=("doc_1", "doc_2")) == {}
    assert barrier.count(f"{surrogate} signed.", documents=("doc_2",)) == {"PERSON": 1}


def test_a_call_is_audited_without_texts_and_stores_nothing(barrier: House) -> None:
    barrier.write("doc_1", LETTER)
    before = _dump(barrier.engine, "entries"), _dump(barrier.engine, "occurrences")
    barrier.count("Ngozi Okafor and Zelda Unheard", "Nothing.")
    assert (_dump(barrier.engine, "entries"), _dump(barrier.engine, "occurrences")) == before
    assert barrier.audited() == [("evaluation", "TRUE_VALUES", "", "counts true values in 2 answers of a model")]


@pytest.mark.parametrize(
    ("texts", "ids", "field"),
    [
        (["x"] * (domain.MAX_SEARCH_TEXTS + 1), [], "texts"),
        (["x" * (domain.MAX_SEARCH_CHARS + 1)], [], "texts"),
        (["x"], [["doc"] * (domain.MAX_SEARCH_IDS + 1)], "document_ids"),
    ],
)
def test_a_search_is_bounded(barrier: House, texts: list[str], ids: list[list[str]], field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        barrier.count_in(ids, texts)
    assert refused.value.reason == Reason.TOO_LONG and list(refused.value.field_violations) == [field]


def _dump(engine: Engine, table: str) -> list[tuple[object, ...]]:
    with engine.connect() as connection:
        return sorted(map(tuple, connection.execute(text(f"SELECT * FROM {table}"))))
