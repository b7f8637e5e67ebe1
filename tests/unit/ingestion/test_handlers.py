"""Ingesting and withdrawing documents, without stores."""

import hashlib
from typing import Any

import pytest

from services.ingestion.domain import (
    Acceptance,
    DocumentKind,
    File,
    FileReference,
    Outcome,
    ParsedText,
    Rejection,
    RejectionReason,
    Submission,
    malformed,
)
from services.ingestion.handlers import FETCH_ATTEMPTS, Intake, ingest, withdraw
from services.ingestion.wire import from_outcome
from tailor.api.events.v1 import documents_pb2
from tailor.errors import Reason, Unavailable
from tailor.values import Labels
from tests.unit.ingestion.fakes import MemoryErasures, MemoryFetcher, make_intake, make_receipt

LABELS = Labels("wiki", "risk", "internal")


def submit(
    intake: Intake,
    key: str,
    external_id: str,
    content: File | FileReference | ParsedText,
    kind: DocumentKind = DocumentKind.DOCUMENT,
) -> Outcome:
    return ingest(intake, make_receipt(key), Submission(external_id, kind, LABELS, content))


def note(text: str) -> File:
    return File(text.encode(), "note.txt")


def test_stores_a_document_in_quarantine_and_publishes_it() -> None:
    intake, catalogue, quarantine = make_intake()
    outcome = submit(intake, "1", "memo-7", note("The operating rhythm continues."))
    assert isinstance(outcome, Acceptance)
    assert (outcome.sequence, outcome.format, outcome.char_count) == (1, "txt", 32)
    assert quarantine.texts[0][2].text == "The operating rhythm continues.\n"
    assert catalogue.published == [outcome]


def test_an_accepted_document_says_what_was_skipped_of_its_file() -> None:
    intake, _, _ = make_intake()
    outcome = submit(intake, "1", "memo-7", File(b"<nav>Menu</nav><p>The rhythm continues.</p>", "note.html"))
    message = from_outcome(outcome)[2]
    assert isinstance(message, documents_pb2.DocumentIngested) and dict(message.removed) == {"navigation": 4}


def test_a_then_b_then_a_again_are_three_versions() -> None:
    intake, _, _ = make_intake()
    outcomes = [
        submit(intake, key, "memo-7", note(text)) for key, text in (("1", "text A"), ("2", "text B"), ("3", "text A"))
    ]
    assert [outcome.sequence for outcome in outcomes if isinstance(outcome, Acceptance)] == [1, 2, 3]
    assert isinstance(outcomes[0], Acceptance) and isinstance(outcomes[2], Acceptance)
    assert outcomes[0].digest == outcomes[2].digest
    assert len({outcome.document_id for outcome in outcomes}) == 1


def test_the_same_text_twice_is_a_duplicate_in_the_same_or_another_document() -> None:
    intake, _, quarantine = make_intake()
    first = submit(intake, "1", "memo-7", note("One text."))
    for key, external_id in (("2", "memo-7"), ("3", "memo-8")):
        outcome = submit(intake, key, external_id, note("One text."))
        assert isinstance(outcome, Rejection)
        assert (outcome.reason, outcome.duplicate_of) == (RejectionReason.DUPLICATE, first.document_id)
    assert len(quarantine.texts) == 1


def test_a_redelivery_publishes_the_same_outcome_and_stores_nothing() -> None:
    intake, catalogue, quarantine = make_intake()
    first = submit(intake, "1", "memo-7", note("One text."))
    again = submit(intake, "1", "memo-7", note("One text."))
    assert again == first
    assert catalogue.published == [first, first]
    assert len(quarantine.texts) == 1


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (File(b"", "empty.txt"), RejectionReason.EMPTY),
        (File(b"  \n \n", "blank.txt"), RejectionReason.NO_TEXT),
        (File(b"x" * 2_000, "long.txt"), RejectionReason.TOO_LARGE),
        (File(b"x" * 200, "many.txt"), RejectionReason.TOO_LARGE),
        (File(b'{"prompt": "Write.", "answer": "Written."}', "example.json"), RejectionReason.MALFORMED),
    ],
)
def test_rejects_with_a_reason_and_a_hint(file: File, reason: RejectionReason) -> None:
    intake, _, quarantine = make_intake(max_file_bytes=1_000, max_chars=100)
    outcome = submit(intake, "1", "memo-7", file)
    assert isinstance(outcome, Rejection)
    assert outcome.reason == reason and len(outcome.hint) > 10
    assert outcome.document_id == "doc_memo-7"
    assert quarantine.texts == []


def test_ingests_five_megabytes_of_text() -> None:
    intake, _, _ = make_intake()
    outcome = submit(intake, "1", "long", note("A long line of words that goes on.\n" * 143_000))
    assert isinstance(outcome, Acceptance) and outcome.char_count > 5_000_000


def test_a_malformed_submission_is_rejected_under_its_spare_document_id() -> None:
    intake, catalogue, _ = make_intake()
    outcome = ingest(intake, make_receipt("1"), malformed("Not JSON."))
    assert isinstance(outcome, Rejection)
    assert (outcome.reason, outcome.document_id) == (RejectionReason.MALFORMED, "doc_spare_1")
    assert catalogue.published == [outcome]


def test_an_example_has_a_prompt() -> None:
    intake, _, quarantine = make_intake()
    file = File(b'{"kind": "example", "prompt": "Write a memo.", "answer": "To: all."}', "example.json")
    outcome = submit(intake, "1", "example-1", file, DocumentKind.EXAMPLE)
    assert isinstance(outcome, Acceptance) and outcome.kind is DocumentKind.EXAMPLE
    assert quarantine.texts[0][2] == ParsedText("To: all.\n", "json", "Write a memo.")


@pytest.mark.parametrize(
    ("data", "kind", "hint"),
    [
        (b'{"prompt": "Write.", "answer": "Done."}', DocumentKind.DOCUMENT, "needs the kind `example`"),
        (b'{"title": "Plan"}', DocumentKind.EXAMPLE, "must be a JSON object with `prompt` and `answer`"),
    ],
)
def test_a_file_of_another_kind_than_its_content_is_rejected(data: bytes, kind: DocumentKind, hint: str) -> None:
    intake, _, _ = make_intake()
    outcome = submit(intake, "1", "memo-7", File(data, "a.json"), kind)
    assert isinstance(outcome, Rejection) and outcome.reason == RejectionReason.MALFORMED
    assert hint in outcome.hint


def silence() -> Unavailable:
    return Unavailable(Reason.HOST_UNAVAILABLE, "The host did not answer.")


def test_a_referenced_file_is_ingested_like_any_other() -> None:
    uri = "https://files.example.com/memo.md"
    digest = hashlib.sha256(b"# Memo").hexdigest()
    intake, catalogue, _ = make_intake(fetcher=MemoryFetcher({uri: File(b"# Memo", "memo.md", "text/markdown")}))
    outcome = submit(intake, "1", "memo-7", FileReference(uri, sha256=digest.upper(), size_bytes=6))
    assert isinstance(outcome, Acceptance) and outcome.format == "md"
    again = submit(intake, "1", "memo-7", FileReference(uri))
    assert again == outcome and catalogue.published == [outcome, outcome]


@pytest.mark.parametrize("announced", [{"sha256": "0" * 64}, {"size_bytes": 5}, {"size_bytes": 0}])
def test_a_file_that_differs_from_its_announcement_is_rejected(announced: dict[str, Any]) -> None:
    uri = "s3://papers/memo.md"
    intake, _, quarantine = make_intake(fetcher=MemoryFetcher({uri: File(b"# Memo", "memo.md")}))
    outcome = submit(intake, "1", "memo-7", FileReference(uri, **announced))
    assert isinstance(outcome, Rejection) and outcome.reason == RejectionReason.CORRUPT
    assert next(iter(announced)) in outcome.hint
    assert quarantine.texts == []


def test_a_reference_to_a_file_that_is_too_large_is_not_fetched() -> None:
    fetcher = MemoryFetcher()
    intake, _, _ = make_intake(fetcher=fetcher, max_file_bytes=1_000)
    outcome = submit(intake, "1", "memo-7", FileReference("s3://papers/memo.md", size_bytes=1_001))
    assert isinstance(outcome, Rejection) and outcome.reason == RejectionReason.TOO_LARGE
    assert fetcher.calls == []


def test_a_host_that_does_not_answer_is_called_again() -> None:
    uri, pauses = "https://files.example.com/memo.md", list[float]()
    fetcher = MemoryFetcher({uri: File(b"# Memo", "memo.md")}, *(silence() for _ in range(FETCH_ATTEMPTS - 1)))
    intake, _, _ = make_intake(fetcher=fetcher, sleep=pauses.append)
    assert isinstance(submit(intake, "1", "memo-7", FileReference(uri)), Acceptance)
    assert all(most / 2 <= pause <= most for pause, most in zip(pauses, (1, 3, 9), strict=True))


def test_a_host_that_never_answers_is_unreachable() -> None:
    fetcher = MemoryFetcher({}, *(silence() for _ in range(9)))
    intake, _, _ = make_intake(fetcher=fetcher)
    outcome = submit(intake, "1", "memo-7", FileReference("https://files.example.com/memo.md"))
    assert isinstance(outcome, Rejection)
    assert (outcome.reason, outcome.labels) == (RejectionReason.UNREACHABLE, LABELS)
    assert len(fetcher.calls) == FETCH_ATTEMPTS


def test_a_withdrawal_is_retried_without_the_registry_and_requested_once() -> None:
    intake, catalogue, _ = make_intake()
    erasures = MemoryErasures()
    first = submit(intake, "1", "memo-7", note("One text."))
    erasures.down = True
    with pytest.raises(Unavailable):
        withdraw(catalogue, erasures, make_receipt("2"), "memo-7", kind=DocumentKind.DOCUMENT)
    erasures.down = False
    for _ in range(2):
        assert withdraw(catalogue, erasures, make_receipt("2"), "memo-7", kind=DocumentKind.DOCUMENT) is None
    assert erasures.requests == {"sub_2": first.document_id}


def test_a_withdrawal_of_an_unknown_document_is_rejected_in_the_same_way_again() -> None:
    _, catalogue, _ = make_intake()
    erasures = MemoryErasures()
    first = withdraw(catalogue, erasures, make_receipt("2"), "memo-7", kind=DocumentKind.DOCUMENT)
    assert first is not None and first.reason == RejectionReason.UNKNOWN_DOCUMENT
    assert withdraw(catalogue, erasures, make_receipt("2"), "memo-7", kind=DocumentKind.DOCUMENT) == first
    assert catalogue.published == [first, first] and erasures.requests == {}
