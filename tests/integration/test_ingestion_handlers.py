"""What ingestion makes of submissions, references and tombstones, over PostgreSQL."""

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine

from services.ingestion.adapters.breaker import FAILURES, CircuitBreaker
from services.ingestion.bootstrap import MIGRATIONS
from services.ingestion.domain import (
    Acceptance,
    DocumentKind,
    File,
    FileReference,
    Outcome,
    ParsedText,
    Receipt,
    Rejection,
    RejectionReason,
    add_sections,
    malformed,
)
from services.ingestion.handlers import FETCH_ATTEMPTS, ingest, withdraw
from services.ingestion.schema import EXAMPLES, KINDS, SUBMITTED, TESTS
from services.ingestion.wire import INGESTED, REJECTED
from tailor.api.events.v1 import documents_pb2
from tailor.errors import Reason, Unavailable
from tests.conftest import migrated
from tests.ingestion import LABELS, Ingestion, MemoryFetcher

pytestmark = pytest.mark.integration

EXAMPLE = b'{"prompt": "Write.", "answer": "Written."}'
URI = "https://files.example.com/memo.md"
MEMO = File(b"# Memo", "memo.md", "text/markdown")
GOLDEN = {"prompt": "Write.", "reference": "Written."}
INSIGHTS = {"figures": ["14 of 40  accounts"], "owners": ["Jane Doe"]}


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with migrated(database_url, MIGRATIONS) as engine:
        yield engine


def reason_of(outcome: Outcome) -> RejectionReason | None:
    return outcome.reason if isinstance(outcome, Rejection) else None


def test_a_file_becomes_a_version_with_what_was_skipped_of_it_and_its_sections(engine: Engine) -> None:
    house, text = Ingestion(engine), "# Rhythm\n\nIt continues.\n\n## Owners\n\nTwo.\n"
    page = house.submit("1", File(b"<nav>Menu</nav><p>The rhythm continues.</p>", "note.html"))
    report = house.submit("2", ParsedText(text, "md"), external_id="report-9")
    assert isinstance(page, Acceptance) and isinstance(report, Acceptance)
    assert (page.sequence, page.format, page.char_count) == (1, "html", 22)
    assert [text.text for text in house.texts()] == ["The rhythm continues.\n", text]
    (_, first, _), (_, second, _) = house.published()
    assert isinstance(first, documents_pb2.DocumentIngested) and dict(first.removed) == {"navigation": 4}
    assert isinstance(second, documents_pb2.DocumentIngested)
    assert report.spans == add_sections(ParsedText(text, "md")).spans and len(report.spans) == 2
    assert [(span.number, span.start, span.end) for span in second.spans] == [
        (span.number, span.start, span.end) for span in report.spans
    ]


def test_rejects_with_a_reason_and_a_hint_and_stores_no_text(engine: Engine) -> None:
    house = Ingestion(engine, max_file_bytes=1_000, max_chars=100)
    document, example = DocumentKind.DOCUMENT, DocumentKind.EXAMPLE
    files = [
        (File(b"", "empty.txt"), document, RejectionReason.EMPTY, "empty"),
        (File(b"  \n \n", "blank.txt"), document, RejectionReason.NO_TEXT, "no text"),
        (File(b"x" * 2_000, "long.txt"), document, RejectionReason.TOO_LARGE, "Publish it in parts"),
        (File(b"x" * 200, "many.txt"), document, RejectionReason.TOO_LARGE, "Publish it in parts"),
        (File(EXAMPLE, "a.json"), document, RejectionReason.MALFORMED, "needs the kind `example`"),
        (File(b'{"title": "Plan"}', "a.json"), example, RejectionReason.MALFORMED, "`prompt` and `answer`"),
    ]
    outcomes = [house.submit(str(number), file, kind) for number, (file, kind, _, _) in enumerate(files)]
    for outcome, (_, _, reason, hint) in zip(outcomes, files, strict=True):
        assert isinstance(outcome, Rejection) and outcome.reason == reason and hint in outcome.hint
    assert len({outcome.document_id for outcome in outcomes}) == 1 and house.texts() == []
    spare = ingest(house.intake, Receipt("m", "sub_m", "doc_spare"), malformed("Not JSON."))
    assert (reason_of(spare), spare.document_id) == (RejectionReason.MALFORMED, "doc_spare")
    assert [topic for topic, _, _ in house.published()] == [REJECTED] * 7


def test_examples_and_golden_documents_have_prompts_and_long_texts_are_accepted(engine: Engine) -> None:
    house = Ingestion(engine)
    example = house.submit("1", File(EXAMPLE, "example.json"), DocumentKind.EXAMPLE)
    golden = json.dumps({**GOLDEN, "key_insights": INSIGHTS}).encode()
    house.handle(TESTS, golden, {"document-id": "t-1", "file-name": "t.json"})
    assert isinstance(example, Acceptance) and example.kind is DocumentKind.EXAMPLE
    assert [(text.text, text.prompt, text.insights) for text in house.texts()] == [
        ("Written.\n", "Write.", None),
        ("Written.\n", "Write.", {"figures": ("14 of 40 accounts",), "owners": ("Jane Doe",)}),
    ]
    (record,) = house.catalogue.find_submissions("t-1", 10)
    assert isinstance(record.outcome, Acceptance) and record.outcome.kind is DocumentKind.TEST
    assert record.outcome.char_count == len("Written.\nWrite.14 of 40 accountsJane Doe")
    long = house.submit("3", File(b"A long line of words that goes on.\n" * 143_000, "a.txt"), external_id="long")
    assert isinstance(long, Acceptance) and long.char_count > 5_000_000


@pytest.mark.parametrize("kind", ["", "kind"])
@pytest.mark.parametrize(
    ("topic", "pair"), [(EXAMPLES, json.loads(EXAMPLE)), (TESTS, GOLDEN)], ids=["examples", "tests"]
)
def test_who_publishes_documents_publishes_neither_examples_nor_tests(
    engine: Engine, topic: str, pair: dict[str, str], kind: str
) -> None:
    house, pair = Ingestion(engine), pair | ({"kind": KINDS[topic].value} if kind else {})
    house.handle(SUBMITTED, json.dumps({"document_id": "a"} | pair).encode())
    headers = {"document-id": "b", "file-name": "b.json"} | ({"kind": KINDS[topic].value} if kind else {})
    house.handle(SUBMITTED, json.dumps(pair).encode(), headers)
    content = base64.b64encode(json.dumps(pair).encode()).decode()
    event = {"document_id": "c", "file_name": "c.json", "content_base64": content}
    house.handle(SUBMITTED, json.dumps(event).encode())
    assert [topic for topic, _, _ in house.published()] == [REJECTED] * 3 and not house.texts()


def test_a_referenced_file_is_ingested_like_any_other_unless_it_differs_from_its_announcement(engine: Engine) -> None:
    fetcher = MemoryFetcher({URI: MEMO})
    house = Ingestion(engine, fetcher=fetcher, max_file_bytes=1_000)
    digest = hashlib.sha256(MEMO.data).hexdigest().upper()
    outcome = house.submit("1", FileReference(URI, sha256=digest, size_bytes=6))
    assert isinstance(outcome, Acceptance) and outcome.format == "md"
    assert house.submit("1", FileReference(URI)) == outcome
    differing: list[dict[str, Any]] = [{"sha256": "0" * 64}, {"size_bytes": 5}, {"size_bytes": 0}]
    for number, announced in enumerate(differing):
        other = house.submit(f"other {number}", FileReference(URI, **announced))
        assert isinstance(other, Rejection) and other.reason == RejectionReason.CORRUPT
        assert next(iter(announced)) in other.hint
    calls = len(fetcher.calls)
    assert reason_of(house.submit("large", FileReference(URI, size_bytes=1_001))) == RejectionReason.TOO_LARGE
    assert len(fetcher.calls) == calls and len(house.texts()) == 1


def silent(count: int) -> list[Exception]:
    return [Unavailable(Reason.HOST_UNAVAILABLE, "The host did not answer.") for _ in range(count)]


def test_a_host_is_called_again_with_pauses_and_is_unreachable_if_it_never_answers(engine: Engine) -> None:
    pauses = list[float]()
    fetcher = MemoryFetcher({URI: MEMO}, *silent(FETCH_ATTEMPTS - 1))
    house = Ingestion(engine, fetcher=fetcher, sleep=pauses.append)
    assert isinstance(house.submit("1", FileReference(URI)), Acceptance)
    assert all(most / 2 <= pause <= most for pause, most in zip(pauses, (1, 3, 9), strict=True))
    fetcher.failures, calls = silent(9), len(fetcher.calls)
    outcome = house.submit("2", FileReference(URI))
    assert (reason_of(outcome), outcome.labels) == (RejectionReason.UNREACHABLE, LABELS)
    assert len(fetcher.calls) - calls == FETCH_ATTEMPTS


def test_documents_of_a_dead_host_wait_only_for_the_first_of_them(engine: Engine) -> None:
    fetcher, pauses = MemoryFetcher({URI: MEMO}, *silent(100)), list[float]()
    house = Ingestion(engine, fetcher=CircuitBreaker(fetcher), sleep=pauses.append)
    outcomes = [house.submit(str(number), FileReference(URI), external_id=str(number)) for number in range(8)]
    assert {reason_of(outcome) for outcome in outcomes} == {RejectionReason.UNREACHABLE}
    assert len(pauses) == FAILURES - 1 and len(fetcher.calls) == FAILURES
    assert isinstance(outcomes[-1], Rejection) and "paused" in outcomes[-1].hint


def test_every_event_is_accounted_for_and_nothing_personal_is_published(engine: Engine) -> None:
    house = Ingestion(engine, fetcher=MemoryFetcher({f"{URI}?signature=secret": MEMO}))
    letter = b"Jane Doe, 4 Mill Road"
    house.handle(SUBMITTED, letter, key="jane.doe")
    house.handle(SUBMITTED, letter, {"document-id": "Jane Doe", "file-name": "Jane Doe.txt"}, "jane.doe")
    for name, uri in (("a", URI), ("b", f"{URI}/other")):
        house.handle(SUBMITTED, json.dumps({"document_id": name, "uri": f"{uri}?signature=secret"}).encode())
    published = house.published()
    assert [topic for topic, _, _ in published] == [REJECTED, INGESTED, INGESTED, REJECTED]
    stored = [house.catalogue.find_submissions(name, 10) for name in ("jane.doe", "Jane Doe", "a", "b")]
    assert reason_of(stored[-1][0].outcome) == RejectionReason.NOT_ALLOWED
    for personal in ("Jane", "Mill", "secret"):
        assert personal not in str([message for _, message, _ in published]) + str(stored)


def test_an_id_belongs_to_the_topic_on_which_it_was_published_first(engine: Engine) -> None:
    house = Ingestion(engine)
    house.handle(TESTS, json.dumps({"document_id": "t-1"} | GOLDEN).encode())
    house.handle(SUBMITTED, json.dumps({"document_id": "t-1", "text": "Other words."}).encode())
    other, accepted = (record.outcome for record in house.catalogue.find_submissions("t-1", 10))
    assert isinstance(accepted, Acceptance) and len(house.texts()) == 1
    assert isinstance(other, Rejection) and "belongs to a document of the kind `test`" in other.hint
    house.handle(SUBMITTED, None, key="t-1")
    assert not house.erasures
    house.handle(TESTS, None, key="t-1")
    assert list(house.erasures.values()) == [accepted.document_id]


def test_a_tombstone_has_its_document_erased_once_and_is_rejected_without_one(engine: Engine) -> None:
    house, down = Ingestion(engine), True

    def request_erasure(document_id: str, request_id: str) -> None:
        if down:
            raise Unavailable(Reason("REGISTRY_UNAVAILABLE"), "registry does not answer.")
        house.request_erasure(document_id, request_id)

    def withdraw_memo(key: str, external_id: str = "memo-7") -> Rejection | None:
        receipt = Receipt(key, f"sub_{key}", "doc_spare")
        return withdraw(house.catalogue, request_erasure, receipt, external_id, kind=DocumentKind.DOCUMENT)

    first = house.submit("1", File(b"One text.", "note.txt"))
    with pytest.raises(Unavailable):
        withdraw_memo("2")
    down = False
    assert withdraw_memo("2") is withdraw_memo("2") is None
    assert house.erasures == {"sub_2": first.document_id}
    unknown = withdraw_memo("3", "memo-8")
    assert unknown is not None and unknown.reason == RejectionReason.UNKNOWN_DOCUMENT
    assert len(house.published()) == 2 and withdraw_memo("3", "memo-8") == unknown
    house.handle(SUBMITTED, None, key="")
    *_, (_, message, event_id), (_, again, again_id), (_, malformed_one, _) = house.published()
    assert (message, event_id) == (again, again_id) and len(house.erasures) == 1
    assert isinstance(malformed_one, documents_pb2.DocumentRejected)
    assert malformed_one.reason == documents_pb2.REJECTION_REASON_MALFORMED


@pytest.mark.parametrize(
    ("stage", "republished"), [(documents_pb2.STAGE_ANONYMIZATION, True), (documents_pb2.STAGE_INGESTION, False)]
)
def test_a_document_that_anonymization_rejected_may_be_published_again_unchanged(
    engine: Engine, stage: "documents_pb2.Stage.ValueType", republished: bool
) -> None:
    house, memo = Ingestion(engine), b'{"document_id": "memo-7", "text": "Words."}'
    house.handle(SUBMITTED, memo)
    (first,) = house.catalogue.find_submissions("memo-7", 10)
    rejected = documents_pb2.DocumentRejected(
        document_id=first.outcome.document_id,
        submission_id=first.outcome.submission_id,
        stage=stage,
        reason=documents_pb2.REJECTION_REASON_UNREADABLE,
        hint="Publish it again.",
    )
    house.handle(REJECTED, rejected.SerializeToString())
    house.handle(SUBMITTED, memo)
    second, known = house.catalogue.find_submissions("memo-7", 10)
    assert isinstance(second.outcome, Acceptance) is republished and len(house.texts()) == 1 + republished
    assert (known.later and known.later.reason) == ("UNREADABLE" if republished else None)
    assert replace(known, later=None) == first
