"""The catalogue over PostgreSQL: versions, redelivery, replicas."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import Engine, text

from services.ingestion.adapters.erasures import DocumentEraser
from services.ingestion.bootstrap import MIGRATIONS
from services.ingestion.domain import (
    Acceptance,
    DocumentKind,
    LaterRejection,
    ParsedText,
    Receipt,
    Rejected,
    Rejection,
    RejectionReason,
)
from services.ingestion.handlers import ingest
from services.ingestion.schema import SUBMITTED
from services.ingestion.wire import INGESTED, REJECTED, to_receipt, to_submission
from tailor.api.events.v1 import documents_pb2
from tailor.errors import Reason, Unavailable
from tailor.events.envelope import Event
from tailor.events.erased import Erased
from tailor.storage.memory import MemoryStore
from tailor.storage.ref import Ref
from tailor.values import Span, SpanKind
from tests.conftest import migrated
from tests.ingestion import DIGEST_KEY, Ingestion

pytestmark = pytest.mark.integration

LATER = LaterRejection("UNREADABLE", "Publish it again.")


class FailingStore(MemoryStore):
    def put(self, bucket: str, key: str, data: bytes, content_type: str = "application/octet-stream") -> Ref:
        raise Unavailable(Reason.OBJECT_STORE_UNAVAILABLE, "The object store does not answer.")


class CountingStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.puts = 0

    def put(self, bucket: str, key: str, data: bytes, content_type: str = "application/octet-stream") -> Ref:
        self.puts += 1
        return super().put(bucket, key, data, content_type)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with migrated(database_url, MIGRATIONS) as engine:
        yield engine


def test_a_stored_outcome_is_published_again_with_its_spans(engine: Engine) -> None:
    replica = Ingestion(engine, MemoryStore())
    first = replica.ingest(0, "memo-7", "# Position\n\nIt holds.")
    assert replica.ingest(0, "memo-7", "# Position\n\nIt holds.") == first
    assert isinstance(first, Acceptance) and first.spans == (Span(SpanKind.SECTION, 1, 0, 21, 1),)
    replica.outbox.relay()
    messages: list[Any] = replica.producer.messages(INGESTED)
    assert {len(message.spans) for message in messages} == {1}


def test_a_then_b_then_a_are_three_published_versions(engine: Engine) -> None:
    replica = Ingestion(engine)
    first, other, third = (replica.ingest(number, "memo-7", words) for number, words in enumerate(("A", "B", "A")))
    assert isinstance(first, Acceptance) and isinstance(third, Acceptance) and first.digest == third.digest
    assert len({outcome.document_id for outcome in (first, other, third)}) == 1
    messages = [message for _, message, _ in replica.published()]
    assert [
        message.version.sequence for message in messages if isinstance(message, documents_pb2.DocumentIngested)
    ] == [1, 2, 3]
    assert len(replica.store.objects) == 3


def test_publishing_an_unchanged_corpus_again_stores_no_object(engine: Engine) -> None:
    store = CountingStore()
    replica = Ingestion(engine, store)
    first = [replica.ingest(number, f"memo-{number}", f"text {number}") for number in range(30)]
    assert store.puts == 30 and all(isinstance(outcome, Acceptance) for outcome in first)
    again = [replica.ingest(100 + number, f"memo-{number}", f"text {number}") for number in range(30)]
    assert store.puts == 30
    assert [outcome.reason for outcome in again if isinstance(outcome, Rejection)] == [RejectionReason.DUPLICATE] * 30
    replica.ingest(200, "memo-7", "text 7, changed")
    assert store.puts == 31


def test_a_new_version_releases_the_text_of_the_previous_one(engine: Engine) -> None:
    replica = Ingestion(engine, MemoryStore())
    replica.ingest(0, "memo-7", "old words")
    newer = replica.ingest(1, "memo-7", "new words")
    assert isinstance(newer, Acceptance) and newer.sequence == 2
    elsewhere = replica.ingest(2, "memo-8", "old words")
    assert isinstance(elsewhere, Acceptance)
    restored = replica.ingest(3, "memo-7", "old words")
    assert isinstance(restored, Rejection) and restored.duplicate_of == elsewhere.document_id


def test_a_rejected_version_may_be_published_again(engine: Engine) -> None:
    store = CountingStore()
    replica = Ingestion(engine, store)
    catalogue = replica.intake.catalogue
    first, second = replica.ingest(0, "memo-7", "text A"), replica.ingest(1, "memo-7", "text B")
    assert isinstance(first, Acceptance) and isinstance(second, Acceptance)
    catalogue.release(first.document_id, first.submission_id, LATER)
    assert isinstance(replica.ingest(2, "memo-7", "text B"), Rejection)
    for _ in range(2):
        catalogue.release(second.document_id, second.submission_id, LATER)
    third = replica.ingest(3, "memo-7", "text B")
    assert isinstance(third, Acceptance) and (third.sequence, third.digest) == (3, second.digest)
    catalogue.release(second.document_id, second.submission_id, LATER)
    catalogue.release("doc_unknown", "sub_unknown", LATER)
    assert isinstance(replica.ingest(4, "memo-7", "text B"), Rejection)
    assert store.puts == 3


def test_a_publishers_id_is_resolved_to_the_documents_id(engine: Engine) -> None:
    replica = Ingestion(engine, MemoryStore())
    outcome = replica.ingest(0, "Jane Doe.txt", "text A")
    resolve = replica.intake.catalogue.resolve
    assert resolve("Jane Doe.txt", DocumentKind.DOCUMENT) == outcome.document_id
    assert resolve("Jane Doe.txt", DocumentKind.TEST) is None
    assert resolve("memo-8", DocumentKind.DOCUMENT) is None


def test_characters_that_neither_utf_8_nor_the_database_accepts_are_removed(engine: Engine) -> None:
    replica = Ingestion(engine)
    replica.handle(SUBMITTED, b'{"document_id": "a", "text": "x\\ud800\\u0000y"}')
    replica.handle(SUBMITTED, b'{"document_id": "a\\u0000", "text": "x"}')
    assert [topic for topic, _, _ in replica.published()] == [INGESTED, REJECTED]


def test_quarantine_holds_ciphertext_and_events_hold_no_name(engine: Engine) -> None:
    store = MemoryStore()
    replica = Ingestion(engine, store)
    replica.ingest(0, "Jane Doe.txt", "Jane Doe lives at 4 Mill Road.")
    replica.outbox.relay()
    stored = b"".join(store.objects.values()) + "".join(key for _, key in store.objects).encode()
    published = b"".join(message.SerializeToString() for _, _, message, _ in replica.producer.sent)
    assert b"Jane" not in stored + published and b"Mill" not in stored + published


def test_a_redelivery_publishes_the_same_event(engine: Engine) -> None:
    store = MemoryStore()
    replica = Ingestion(engine, store)
    first = replica.ingest(0, "memo-7", "text A")
    replica.outbox.relay()
    assert replica.ingest(0, "memo-7", "text A") == first
    replica.outbox.relay()
    (_, _, message, event_id), (_, _, again, again_id) = replica.producer.sent
    assert (event_id, message) == (again_id, again)
    assert len(store.objects) == 1


def test_replicas_that_ingest_the_same_event_create_one_version(engine: Engine) -> None:
    store = MemoryStore()
    replicas = [Ingestion(engine, store) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(
            pool.map(
                lambda number: replicas[number % 4].ingest(number // 8, "memo-7", f"text {number // 8}"), range(40)
            )
        )
    assert len({outcome.submission_id for outcome in outcomes}) == 5
    assert {outcome.sequence for outcome in outcomes if isinstance(outcome, Acceptance)} == {1, 2, 3, 4, 5}
    assert len({outcome.document_id for outcome in outcomes}) == 1


def test_the_same_text_in_two_documents_at_once_becomes_current_in_one(engine: Engine) -> None:
    store = MemoryStore()
    replicas = [Ingestion(engine, store) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(
            pool.map(lambda number: replicas[number % 4].ingest(number, f"memo-{number}", "one text"), range(12))
        )
    accepted = [outcome for outcome in outcomes if isinstance(outcome, Acceptance)]
    rejections = [outcome for outcome in outcomes if isinstance(outcome, Rejection)]
    assert len(accepted) == 1 and len(rejections) == 11
    assert {(outcome.reason, outcome.duplicate_of) for outcome in rejections} == {
        (RejectionReason.DUPLICATE, accepted[0].document_id)
    }


def test_an_unreachable_store_leaves_nothing_behind(engine: Engine) -> None:
    with pytest.raises(Unavailable):
        Ingestion(engine, FailingStore()).ingest(0, "memo-7", "text A")
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM submissions")).scalar() == 0
    outcome = Ingestion(engine, MemoryStore()).ingest(0, "memo-7", "text A")
    assert isinstance(outcome, Acceptance) and outcome.sequence == 1


def test_a_document_ingested_again_after_a_crash_leaves_one_object(engine: Engine) -> None:
    store = MemoryStore()
    replica = Ingestion(engine, store)
    write = replica.intake.quarantine.write

    def write_and_crash(document_id: str, sequence: int, parsed: ParsedText) -> Ref:
        write(document_id, sequence, parsed)
        raise KeyboardInterrupt

    crashing = replace(replica.intake, quarantine=cast(Any, SimpleNamespace(write=write_and_crash)))
    event = Event(SUBMITTED, "memo-7", b"text A", {"document-id": "memo-7", "file-name": "note.txt"}, 0, 0, 1)
    with pytest.raises(KeyboardInterrupt):
        ingest(crashing, to_receipt(event, DIGEST_KEY), to_submission(event))
    assert len(store.objects) == 1
    outcome = ingest(replica.intake, to_receipt(event, DIGEST_KEY), to_submission(event))
    assert isinstance(outcome, Acceptance) and list(store.objects) == [(outcome.text.bucket, outcome.text.key)]


def test_a_rejection_has_the_id_of_its_document(engine: Engine) -> None:
    replica = Ingestion(engine, MemoryStore())
    first = replica.ingest(0, "memo-7", "text A")
    empty = replica.ingest(1, "memo-7", "")
    assert isinstance(empty, Rejection) and empty.reason == RejectionReason.EMPTY
    assert empty.document_id == first.document_id
    again = replica.ingest(2, "memo-7", "text B")
    assert isinstance(again, Acceptance) and again.sequence == 2
    replica.outbox.relay()
    assert len(replica.producer.messages(REJECTED)) == 1


def test_an_erased_document_is_rejected_until_the_erasure_is_lifted(engine: Engine) -> None:
    store = MemoryStore()
    replica, eraser = Ingestion(engine, store), DocumentEraser(engine, store)
    first = replica.ingest(0, "memo-7", "text A")
    eraser.forget(Erased(first.document_id, "ers_1"))
    assert not store.objects
    for offset, words in ((0, "text A"), (1, "text B")):
        rejection = replica.ingest(offset, "memo-7", words)
        assert isinstance(rejection, Rejection)
        assert (rejection.reason, rejection.document_id) == (RejectionReason.ERASED, first.document_id)
    assert not store.objects
    with engine.connect() as connection:
        assert "memo-7" not in str(connection.execute(text("SELECT external_id FROM documents")).all())
    eraser.lift(first.document_id)
    restored = replica.ingest(2, "memo-7", "text A")
    assert isinstance(restored, Acceptance)
    assert (restored.document_id, restored.sequence) == (first.document_id, 2)
    assert isinstance(replica.ingest(0, "memo-7", "text A"), Rejection)


def test_finds_what_became_of_a_publishers_own_document(engine: Engine) -> None:
    replica = Ingestion(engine, MemoryStore())
    catalogue = replica.intake.catalogue
    accepted = replica.ingest(0, "memo-7", "first")
    replica.ingest(1, "memo-8", "second")
    malformed = Receipt("key_bad", "sub_bad", "doc_spare", claimed_id="memo-7", publisher="key_1")
    ingest(replica.intake, malformed, Rejected(RejectionReason.MALFORMED, "`text` must be a text."))
    catalogue.release(accepted.document_id, accepted.submission_id, LATER)
    newest, oldest = catalogue.find_submissions("memo-7", 10)
    assert isinstance(newest.outcome, Rejection) and newest.outcome.reason == RejectionReason.MALFORMED
    assert newest.publisher == "key_1" and newest.later is None
    assert oldest.outcome == accepted and oldest.later == LATER
    assert len(catalogue.find_submissions("memo-7", 1)) == 1
    assert catalogue.find_submissions("memo-9", 10) == []


def test_an_erased_document_is_found_by_its_publishers_id_no_longer(engine: Engine) -> None:
    replica = Ingestion(engine, MemoryStore())
    outcome = replica.ingest(0, "memo-7", "first")
    malformed = Receipt("key_bad", "sub_bad", "doc_spare", claimed_id="memo-7")
    ingest(replica.intake, malformed, Rejected(RejectionReason.MALFORMED, "`text` must be a text."))
    DocumentEraser(engine, MemoryStore()).forget(Erased(outcome.document_id, "ers_1"))
    assert replica.intake.catalogue.find_submissions("memo-7", 10) == []
