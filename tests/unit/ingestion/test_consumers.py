"""What outsiders publish, and what is stated."""

import base64
import json
from pathlib import Path

import pytest

from services.ingestion.consumers import (
    ENVELOPES,
    PUBLISHED,
    REJECTED,
    SUBMITTED,
    handlers,
    to_event,
    to_external_id,
    to_receipt,
    to_submission,
)
from services.ingestion.domain import (
    Accepted,
    File,
    Kind,
    Labels,
    Parsed,
    Reference,
    Refused,
    Rejected,
    RejectionReason,
)
from tailor.api.events.v1 import documents_pb2
from tailor.events.envelope import Event
from tailor.events.topics import load_topics
from tests.unit.ingestion.fakes import DIGEST_KEY, MemoryFetcher, make_intake, make_withdrawals

SCHEMAS = Path(__file__).parents[3] / "services" / "ingestion" / "schemas"
FILE_HEADERS = {"Document-Id": "memo-7", "file-name": "memo.md", "label-source": "wiki", "label-department": "risk"}


def json_event(content: object, topic: str = SUBMITTED, **place: int) -> Event:
    return Event(topic, "memo-7", json.dumps(content).encode(), {"content-type": "application/json"}, **place)


@pytest.mark.parametrize("topic", [SUBMITTED, PUBLISHED])
def test_reads_the_examples_of_the_topics(topic: str) -> None:
    submission = to_submission(json_event(load_topics()[topic].example["json"], topic))
    assert submission.kind is (Kind.DELIVERABLE if topic == PUBLISHED else Kind.DOCUMENT)
    assert isinstance(submission.content, Parsed)


def test_reads_a_file_with_headers() -> None:
    submission = to_submission(Event(SUBMITTED, "", b"# Memo", FILE_HEADERS))
    assert submission.external_id == "memo-7"
    assert submission.content == File(b"# Memo", "memo.md", "")
    assert submission.labels == Labels("wiki", "risk", "")


def test_reads_an_example_with_headers_or_as_json() -> None:
    value = json.dumps({"prompt": "Write.", "answer": "Written."}).encode()
    headers = {"document-id": "e-1", "content-type": "application/json"}
    assert to_submission(Event(SUBMITTED, "", value, headers)).kind is Kind.EXAMPLE
    submission = to_submission(
        json_event({"document_id": "e-1", "kind": "example", "prompt": "Write.", "answer": "Written."})
    )
    assert submission.content == Parsed("Written.\n", "json", "Write.")


@pytest.mark.parametrize("value", [b'{"prompt": "only"}', b"[1, 2]", b"[" * 100_000, b"\xff"])
def test_other_json_with_headers_is_a_document(value: bytes) -> None:
    headers = {"document-id": "d-1", "file-name": "data.json"}
    assert to_submission(Event(SUBMITTED, "", value, headers)).kind is Kind.DOCUMENT


def test_reads_a_file_within_json() -> None:
    content = {"document_id": "r", "content_base64": base64.b64encode(b"%PDF").decode(), "file_name": "r.pdf"}
    assert to_submission(json_event(content)).content == File(b"%PDF", "r.pdf", "")


def test_reads_a_reference_within_json() -> None:
    content = {
        "document_id": "r",
        "uri": "s3://papers/r.pdf",
        "sha256": "AB" * 32,
        "size_bytes": 7,
        "file_name": "x/r.pdf",
    }
    assert to_submission(json_event(content)).content == Reference("s3://papers/r.pdf", "r.pdf", "", "AB" * 32, 7)
    assert to_submission(json_event({"document_id": "r", "uri": "https://a.b/c"}, PUBLISHED)).kind is Kind.DELIVERABLE


def test_what_neither_a_database_nor_utf_8_takes_goes_no_further() -> None:
    submission = to_submission(Event(SUBMITTED, "", b'{"document_id": "a", "text": "x\\u0000\\ud800y"}'))
    assert submission.content == Parsed("xy\n", "json")
    content = {"document_id": "a", "content_base64": "", "file_name": "a\x00b/c\x00.txt"}
    assert to_submission(json_event(content)).content == File(b"", "c.txt")


@pytest.mark.parametrize(
    "event",
    [
        json_event({"document_id": "a\x00b", "text": "x"}),
        json_event({"document_id": "a", "uri": "https://a.b/c", "text": "x"}),
        json_event({"document_id": "a", "uri": ""}),
        json_event({"document_id": "a", "uri": "https://a.b/" + "c" * 5000}),
        json_event({"document_id": "a", "uri": "https://a.b/c", "sha256": "abc"}),
        json_event({"document_id": "a", "uri": "https://a.b/c", "size_bytes": -1}),
        json_event({"document_id": "a", "text": "x", "size_bytes": 1}),
        Event(SUBMITTED, "", b""),
        Event(SUBMITTED, "", b"\xff\xfe poison"),
        Event(SUBMITTED, "", b"[" * 100_000),
        json_event([1]),
        json_event({"text": "no id"}),
        json_event({"document_id": "a"}),
        json_event({"document_id": "a", "text": "x", "surprise": 1}),
        json_event({"document_id": "a", "text": "x", "answer": "y"}),
        json_event({"document_id": "a", "content_base64": "***"}),
        json_event({"document_id": "a", "text": "x", "labels": {"source": "Jane Doe"}}),
        json_event({"document_id": "a", "text": "x", "draft_id": "drf_1"}),
        json_event({"document_id": "a", "text": "x", "kind": "document"}, PUBLISHED),
        Event(SUBMITTED, "", b"# Memo", {**FILE_HEADERS, "label-source": "Jane Doe"}),
        Event(SUBMITTED, "", b"# Memo", {**FILE_HEADERS, "kind": "novel"}),
        Event(SUBMITTED, "", b"# Memo", {**FILE_HEADERS, "document-id": " ", "Document-Id": " "}),
    ],
)
def test_a_poison_event_is_a_malformed_submission(event: Event) -> None:
    with pytest.raises(Rejected) as caught:
        to_submission(event)
    assert caught.value.reason == RejectionReason.MALFORMED
    assert "Jane" not in caught.value.hint


def test_a_redelivery_has_the_same_key_and_another_value_at_the_same_place_has_not() -> None:
    first, again, other = (
        to_receipt(json_event({"document_id": text}, offset=3), DIGEST_KEY, to_submission) for text in ("a", "a", "b")
    )
    assert first.key == again.key and first.submission_id == again.submission_id
    assert first.key != other.key
    assert first.key != to_receipt(json_event({"document_id": "a"}, offset=4), DIGEST_KEY, to_submission).key


def test_every_event_is_accounted_for_and_nothing_personal_is_stated() -> None:
    intake, catalogue, _ = make_intake()
    handle = handlers(intake, make_withdrawals(catalogue)[0])[SUBMITTED]
    handle(Event(SUBMITTED, "jane.doe", b"Jane Doe, 4 Mill Road", offset=0))
    handle(
        Event(
            SUBMITTED,
            "jane.doe",
            b"Jane Doe, 4 Mill Road",
            {"document-id": "Jane Doe", "file-name": "Jane Doe.txt"},
            offset=1,
        )
    )
    assert len(catalogue.stated) == 2
    topics = []
    for outcome in catalogue.stated:
        topic, _, message, event_id = to_event(outcome)
        topics.append(topic)
        assert event_id == to_event(outcome)[3]
        if isinstance(outcome, Refused):
            assert "Jane" not in str(message) and "Mill" not in str(message)
    assert topics == ["document.rejected.v1", "document.ingested.v1"]


def test_a_reference_is_fetched_and_its_address_is_stated_nowhere() -> None:
    fetcher = MemoryFetcher({"https://a.b/c?signature=secret": File(b"# Memo", "c.md")})
    intake, catalogue, _ = make_intake(fetcher=fetcher)
    handle = handlers(intake, make_withdrawals(catalogue)[0])[SUBMITTED]
    handle(json_event({"document_id": "a", "uri": "https://a.b/c?signature=secret"}, offset=0))
    handle(json_event({"document_id": "b", "uri": "https://a.b/d?signature=secret"}, offset=1))
    accepted, refused = catalogue.stated
    assert isinstance(accepted, Accepted) and accepted.format == "md"
    assert isinstance(refused, Refused) and refused.reason == RejectionReason.NOT_ALLOWED
    assert not [outcome for outcome in catalogue.stated if "secret" in str(to_event(outcome)) + str(outcome)]


@pytest.mark.parametrize("topic", [SUBMITTED, PUBLISHED])
def test_a_tombstone_names_its_document_by_header_or_by_key(topic: str) -> None:
    assert to_external_id(Event(topic, "memo-7", None)) == "memo-7"
    assert to_external_id(Event(topic, "other", None, {"Document-Id": "memo-7"})) == "memo-7"
    with pytest.raises(Rejected):
        to_external_id(Event(topic, "", None))


def test_a_tombstone_has_its_document_erased_and_one_of_nothing_is_accounted_for() -> None:
    intake, catalogue, _ = make_intake()
    withdrawals, erasure = make_withdrawals(catalogue)
    handle = handlers(intake, withdrawals)[SUBMITTED]
    handle(json_event({"document_id": "memo-7", "text": "Words."}, offset=0))
    for _ in range(2):
        handle(Event(SUBMITTED, "memo-7", None, {}, 0, 1))
    assert list(erasure.requests.values()) == ["doc_memo-7"]
    handle(Event(SUBMITTED, "memo-8", None, {}, 0, 2))
    handle(Event(SUBMITTED, "", None, {}, 0, 3))
    reasons = [outcome.reason for outcome in catalogue.stated if isinstance(outcome, Refused)]
    assert reasons == [RejectionReason.UNKNOWN_DOCUMENT, RejectionReason.MALFORMED]
    assert len(erasure.requests) == 1


@pytest.mark.parametrize(
    ("stage", "republished"), [(documents_pb2.STAGE_ANONYMIZATION, True), (documents_pb2.STAGE_INGESTION, False)]
)
def test_what_anonymization_could_not_read_may_be_published_again_unchanged(
    stage: documents_pb2.Stage, republished: bool
) -> None:
    intake, catalogue, quarantine = make_intake()
    listened = handlers(intake, make_withdrawals(catalogue)[0])
    listened[SUBMITTED](json_event({"document_id": "memo-7", "text": "Words."}, offset=0))
    first = catalogue.stated[0]
    rejected = documents_pb2.DocumentRejected(
        document_id=first.document_id, submission_id=first.submission_id, stage=stage
    )
    listened[REJECTED](Event(REJECTED, first.document_id, rejected.SerializeToString()))
    listened[SUBMITTED](json_event({"document_id": "memo-7", "text": "Words."}, offset=1))
    assert isinstance(catalogue.stated[-1], Accepted) is republished
    assert len(quarantine.written) == 1 + republished


def test_states_reasons_by_the_names_of_the_contract() -> None:
    for reason in RejectionReason:
        outcome = Refused("sub_1", "doc_1", reason, "hint", "", Labels(), "", 1)
        message = to_event(outcome)[2]
        assert isinstance(message, documents_pb2.DocumentRejected)
        assert documents_pb2.RejectionReason.Name(message.reason) == f"REJECTION_REASON_{reason}"


@pytest.mark.parametrize("topic", list(ENVELOPES))
def test_the_published_schema_is_the_one_that_is_applied(topic: str) -> None:
    schema = json.loads((SCHEMAS / f"{topic.removesuffix('.v1')}.schema.json").read_text())
    applied = {key: value for key, value in ENVELOPES[topic].model_json_schema().items() if key != "title"}
    assert {key: value for key, value in schema.items() if key not in ("$schema", "title")} == applied
