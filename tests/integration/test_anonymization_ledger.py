"""The outcomes of versions, over PostgreSQL."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import Engine

from services.anonymization.domain import FindingCount, Passed, RefusedDocument
from services.anonymization.ledger import SqlLedger
from tailor.storage.ref import Ref
from tailor.values import Labels, Span, SpanKind
from tests.barrier import MIGRATIONS
from tests.conftest import migrated
from tests.unit.anonymization.fakes import INGESTED

pytestmark = pytest.mark.integration

SPANS = (Span(SpanKind.PAGE, 4, 0, 3), Span(SpanKind.SECTION, 1, 1, 3, 2))
TEXT = Ref("s3://corpus/documents/cd", "cd", 3)
PASSED = Passed(
    replace(INGESTED, spans=SPANS), TEXT, 3, {"PERSON": 2}, "policy", 1, "en", SPANS[1:], "detectors", ("sv",)
)


def passed(document_id: str, sequence: int, uri: str, policy: str = "policy") -> Passed:
    ingested = replace(INGESTED, document_id=document_id, sequence=sequence)
    return replace(PASSED, ingested=ingested, text=replace(TEXT, uri=uri), policy_digest=policy)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with migrated(database_url, MIGRATIONS) as engine:
        yield engine


def test_the_first_outcome_of_a_version_stays_and_is_read_as_it_was_recorded(engine: Engine) -> None:
    ledger, unreadable = SqlLedger(engine), RefusedDocument(replace(INGESTED, sequence=2), "hint", 2)
    assert [ledger.start("doc_1", number) for number in (1, 1, 2)] == [1, 2, 1]
    ledger.forget_starts("doc_1", 2)
    assert ledger.start("doc_1", 2) == 1
    assert ledger.record(PASSED) == ledger.find("doc_1", 1) == PASSED
    assert ledger.record(unreadable) == ledger.find("doc_1", 2) == unreadable
    assert ledger.record(replace(PASSED, time_ms=9)) == PASSED
    assert ledger.start("doc_1", 1) == 1 and ledger.find("doc_1", 3) is None
    ledger.forget_starts("doc_1", 1)
    assert ledger.start("doc_1", 1) == 1


def test_counts_are_those_of_the_newest_versions_that_passed(engine: Engine) -> None:
    ledger, labels = SqlLedger(engine), Labels("wiki", "risk", "internal")
    for outcome in (
        passed("doc_1", 1, "s3://c/1", "old"),
        passed("doc_1", 2, "s3://c/2"),
        passed("doc_2", 1, "s3://c/3", "old"),
    ):
        ledger.record(outcome)
    ledger.record(RefusedDocument(replace(INGESTED, document_id="doc_3"), "hint", 2))
    assert ledger.count_findings() == [FindingCount(labels, "PERSON", 2, 4)]
    assert (ledger.count_outdated("policy", "detectors"), ledger.count_outdated("policy", "others")) == (1, 2)
    newest = ledger.newest(["doc_2", "doc_1", "doc_3"])
    assert {document_id: outcome.text.uri for document_id, outcome in newest.items()} == {
        "doc_1": "s3://c/2",
        "doc_2": "s3://c/3",
    }


def test_texts_that_another_version_has_are_not_its_own(engine: Engine) -> None:
    ledger = SqlLedger(engine)
    for document_id, sequence, uri in (
        ("doc_1", 1, "s3://c/1"),
        ("doc_1", 2, "s3://c/2"),
        ("doc_1", 3, "s3://c/1"),
        ("doc_2", 1, "s3://c/2"),
    ):
        ledger.record(passed(document_id, sequence, uri))
    assert [ref.uri for ref in ledger.texts_of("doc_1")] == ["s3://c/1"]
    assert ledger.texts_before("doc_1", 3) == []
    assert (ledger.forget("doc_1", 3), ledger.forget("doc_2"), ledger.forget("doc_2")) == (2, 1, 0)
    assert ledger.find("doc_1", 2) is None and ledger.find("doc_1", 3) is not None
