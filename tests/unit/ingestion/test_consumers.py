"""What outsiders publish, and what is stated."""

import base64
import json
from pathlib import Path

import pytest

from services.ingestion.consumers import ENVELOPES, PUBLISHED, SUBMITTED, handlers, to_event, to_receipt, to_submission
from services.ingestion.domain import File, Kind, Labels, Parsed, Reason, Refused, Rejected
from tailor.api.events.v1 import documents_pb2
from tailor.events.envelope import Event
from tailor.events.topics import load_topics
from tests.unit.ingestion.fakes import DIGEST_KEY, make_intake

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


def test_reads_a_file_within_json() -> None:
    content = {"document_id": "r", "content_base64": base64.b64encode(b"%PDF").decode(), "file_name": "r.pdf"}
    assert to_submission(json_event(content)).content == File(b"%PDF", "r.pdf", "")


@pytest.mark.parametrize(
    "event",
    [
        Event(SUBMITTED, "", None),
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
    assert caught.value.reason == Reason.MALFORMED
    assert "Jane" not in caught.value.hint


def test_a_redelivery_has_the_same_key_and_another_value_at_the_same_place_has_not() -> None:
    first, again, other = (
        to_receipt(json_event({"document_id": text}, offset=3), DIGEST_KEY) for text in ("a", "a", "b")
    )
    assert first.key == again.key and first.submission_id == again.submission_id
    assert first.key != other.key
    assert first.key != to_receipt(json_event({"document_id": "a"}, offset=4), DIGEST_KEY).key


def test_every_event_is_accounted_for_and_nothing_personal_is_stated() -> None:
    intake, catalogue, _ = make_intake()
    handle = handlers(intake)[SUBMITTED]
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


def test_states_reasons_by_the_names_of_the_contract() -> None:
    for reason in Reason:
        outcome = Refused("sub_1", "doc_1", reason, "hint", "", Labels(), "", 1)
        message = to_event(outcome)[2]
        assert isinstance(message, documents_pb2.DocumentRejected)
        assert documents_pb2.RejectionReason.Name(message.reason) == f"REJECTION_REASON_{reason}"


@pytest.mark.parametrize("topic", list(ENVELOPES))
def test_the_published_schema_is_the_one_that_is_applied(topic: str) -> None:
    schema = json.loads((SCHEMAS / f"{topic.removesuffix('.v1')}.schema.json").read_text())
    applied = {key: value for key, value in ENVELOPES[topic].model_json_schema().items() if key != "title"}
    assert {key: value for key, value in schema.items() if key not in ("$schema", "title")} == applied
