"""Events from publishers, and the events that ingestion publishes."""

import base64
import json
import re
from pathlib import Path

import pytest

from services.ingestion.domain import (
    DocumentKind,
    File,
    FileReference,
    ParsedText,
    Rejected,
    Rejection,
    RejectionReason,
    text_digest,
)
from services.ingestion.schema import DELIVERABLES, EXAMPLES, KINDS, OTHER_TOPICS, SCHEMAS, SUBMITTED, TESTS
from services.ingestion.wire import from_outcome, to_claimed_id, to_external_id, to_receipt, to_submission
from tailor.api.events.v1 import documents_pb2
from tailor.events.envelope import Event
from tailor.events.topics import load_topics
from tailor.values import Labels

SCHEMA_FILES = Path(__file__).parents[3] / "services" / "ingestion" / "schemas"
GOLDEN = {"document_id": "t-1", "prompt": "Jane asks.", "reference": "Written."}
FILE_HEADERS = {"Document-Id": "memo-7", "file-name": "memo.md", "label-source": "wiki", "label-department": "risk"}


def json_event(content: object, topic: str = SUBMITTED, **place: int) -> Event:
    return Event(topic, "memo-7", json.dumps(content).encode(), {"content-type": "application/json"}, **place)


@pytest.mark.parametrize("topic", KINDS)
def test_reads_the_examples_of_the_topics(topic: str) -> None:
    submission = to_submission(json_event(load_topics()[topic].example["json"], topic))
    assert submission.kind is KINDS[topic]
    assert isinstance(submission.content, ParsedText)


def test_reads_a_file_with_headers() -> None:
    submission = to_submission(Event(SUBMITTED, "", b"# Memo", FILE_HEADERS))
    assert submission.external_id == "memo-7"
    assert submission.content == File(b"# Memo", "memo.md", "")
    assert submission.labels == Labels("wiki", "risk", "", "publisher")


def test_reads_a_golden_document_with_headers_or_as_json() -> None:
    insights = {"figures": ["14 of 40  accounts"], "owners": ["Jane Doe"]}
    file = json.dumps({"prompt": "Write.", "reference": "Written.", "key_insights": insights}).encode()
    headers = {"document-id": "t-1", "file-name": "t.json"}
    assert to_submission(Event(TESTS, "", file, headers)).kind is DocumentKind.TEST
    as_json = to_submission(json_event({**GOLDEN, "key_insights": insights}, TESTS))
    assert as_json.kind is DocumentKind.TEST
    assert isinstance(as_json.content, ParsedText)
    assert as_json.content.insights == {"figures": ("14 of 40 accounts",), "owners": ("Jane Doe",)}


def test_a_golden_document_is_another_text_than_an_example() -> None:
    example, golden = (
        ParsedText("Written.\n", "json", "Write."),
        ParsedText("Written.\n", "json", "Write.", insights={}),
    )
    assert text_digest(b"k" * 32, example) != text_digest(b"k" * 32, golden)


def test_reads_an_example_with_headers_or_as_json() -> None:
    value = json.dumps({"prompt": "Write.", "answer": "Written."}).encode()
    headers = {"document-id": "e-1", "content-type": "application/json"}
    assert to_submission(Event(EXAMPLES, "", value, headers)).kind is DocumentKind.EXAMPLE
    submission = to_submission(json_event({"document_id": "e-1", "prompt": "Write.", "answer": "Written."}, EXAMPLES))
    assert submission.content == ParsedText("Written.\n", "json", "Write.")


@pytest.mark.parametrize("topic", KINDS)
def test_the_publisher_is_the_user_of_the_topic_and_cannot_be_sent(topic: str) -> None:
    example = load_topics()[topic].example["json"]
    assert to_submission(json_event(example, topic)).labels.publisher == load_topics()[topic].producers[0]
    headers = FILE_HEADERS | {"label-publisher": "other"}
    assert to_submission(Event(topic, "", b"# Memo", headers)).labels.publisher == load_topics()[topic].producers[0]
    with pytest.raises(Rejected, match="of `labels` is unknown"):
        to_submission(json_event(example | {"labels": {"publisher": "other"}}, topic))


@pytest.mark.parametrize("value", [b'{"prompt": "only"}', b"[1, 2]", b"[" * 100_000, b"\xff"])
def test_other_json_with_headers_is_a_document(value: bytes) -> None:
    headers = {"document-id": "d-1", "file-name": "data.json"}
    assert to_submission(Event(SUBMITTED, "", value, headers)).kind is DocumentKind.DOCUMENT


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
    assert to_submission(json_event(content)).content == FileReference("s3://papers/r.pdf", "r.pdf", "", "AB" * 32, 7)
    assert (
        to_submission(json_event({"document_id": "r", "uri": "https://a.b/c"}, DELIVERABLES)).kind
        is DocumentKind.DELIVERABLE
    )


def test_characters_that_neither_the_database_nor_utf_8_accepts_are_removed() -> None:
    submission = to_submission(Event(SUBMITTED, "", b'{"document_id": "a", "text": "x\\u0000\\ud800y"}'))
    assert submission.content == ParsedText("xy\n", "json")
    content = {"document_id": "a", "content_base64": "", "file_name": "a\x00b/c\x00.txt"}
    assert to_submission(json_event(content)).content == File(b"", "c.txt")


BAD_EVENTS = [
    (b"", "value is empty"),
    (
        b"Dear Jane, a letter.",
        "not valid JSON (line 1, column 1). To publish a file as it is, add a `document-id` header.",
    ),
    (b"\xff\xfe Jane", "neither JSON nor UTF-8"),
    (b"[" * 100_000, "nests too deeply"),
    (b"9" * 5_000, "number with too many digits"),
    (b'["Jane"]', "must be an object"),
    ({"text": "Jane"}, "`document_id` is required."),
    ({"document_id": "", "text": "x"}, "`document_id` must have at least 1 character."),
    ({"document_id": "Jane" * 200, "text": "x"}, "`document_id` must have at most 512 characters."),
    ({"document_id": "Jane\n", "text": "x"}, "`document_id` must not contain control characters."),
    ({"document_id": "a", "text": 42}, "`text` must be a string."),
    (
        {"document_id": "a", "text": "x", "kind": "Jane"},
        "`kind` must be 'document'. Examples, tests and deliverables are published on example.published.v1, test.published.v1 and",
    ),
    ({"document_id": "a", "text": "x", "labels": "Jane"}, "`labels` must be an object."),
    (
        {"document_id": "a", "text": "x", "labels": {"source": "Jane Doe"}},
        "`labels.source` must have at most 64 characters",
    ),
    (
        {"document_id": "a", "text": "x", "labels": {"Jane": ""}},
        "Field 1 of `labels` is unknown. Allowed fields: source,",
    ),
    ({"document_id": "a", "txt": "Jane"}, "Field 2 of the event is unknown. Did you mean `text`?"),
    ({"document_id": "a", "text": "x", "Jane Doe": 1}, "Field 3 of the event is unknown. Allowed fields: document_id,"),
    ({"document_id": "a"}, "no content"),
    ({"document_id": "a", "text": "Jane", "uri": "s3://a/b"}, "several contents (`text`, `uri`)"),
    ({"document_id": "a", "text": "Jane", "answer": "y"}, "Field 3 of the event is unknown."),
    ({"document_id": "a", "content_base64": "Jane***"}, "`content_base64` is not valid base64."),
    ({"document_id": "a", "text": "x", "sha256": "0" * 64}, "`sha256` is allowed only with `uri`."),
    ({"document_id": "a", "text": "x", "size_bytes": 1}, "`size_bytes` is allowed only with `uri`."),
    ({"document_id": "a", "uri": ""}, "`uri` must have at least 1 character."),
    ({"document_id": "a", "uri": "https://a.b/" + "Jane" * 2_000}, "`uri` must have at most 4096 characters."),
    ({"document_id": "a", "uri": "s3://a/b", "sha256": "Jane"}, "`sha256` must have 64 hexadecimal digits."),
    ({"document_id": "a", "uri": "s3://a/b", "size_bytes": -1}, "`size_bytes` must be at least 0."),
    ({"document_id": "a", "uri": "s3://a/b", "size_bytes": 1.5}, "`size_bytes` must be a whole number."),
    ({"document_id": "a", "text": "x", "draft_id": "drf_" + "0" * 32}, "Field 3 of the event is unknown."),
]
BAD_EVENTS_OF_OTHER_TOPICS = [
    (
        DELIVERABLES,
        {"document_id": "a", "text": "x", "draft_id": "Jane"},
        "`draft_id` must be `drf_` and 32 hexadecimal",
    ),
    (
        EXAMPLES,
        {"document_id": "a", "prompt": "Jane"},
        "no content. Send `prompt` and `answer`, `content_base64` or `uri`.",
    ),
    (EXAMPLES, {"document_id": "a", "text": "Jane"}, "Field 2 of the event is unknown."),
    (
        EXAMPLES,
        {"document_id": "a", "prompt": "Jane", "answer": "y", "uri": "s3://a/b"},
        "several contents (`prompt`, `answer`,",
    ),
    (EXAMPLES, {"document_id": "a", "kind": "test", "prompt": "Jane", "answer": "y"}, "`kind` must be 'example'."),
    (
        TESTS,
        {"document_id": "a", "prompt": "Jane"},
        "no content. Send `prompt` and `reference`, `content_base64` or `uri`.",
    ),
    (TESTS, {"document_id": "a", "prompt": "Jane", "answer": "y"}, "Field 3 of the event is unknown."),
    (TESTS, {"document_id": "a", "prompt": " ", "reference": "y"}, "`prompt` of a test must not be empty."),
    (TESTS, {"document_id": "a", "uri": "s3://a/b", "key_insights": {}}, "The file of a test has its own"),
    (
        TESTS,
        GOLDEN | {"key_insights": {"owner": ["Jane"]}},
        "Field 1 of `key_insights` is unknown. Did you mean `owners`?",
    ),
    (TESTS, GOLDEN | {"key_insights": {"owners": "Jane"}}, "`key_insights.owners` must be a list of strings."),
    (TESTS, GOLDEN | {"key_insights": {"owners": [" "]}}, "`key_insights.owners` must have at most 100 statements"),
]


@pytest.mark.parametrize(
    ("topic", "value", "sentence"), [*((SUBMITTED, *each) for each in BAD_EVENTS), *BAD_EVENTS_OF_OTHER_TOPICS]
)
def test_the_hint_names_the_mistake_and_quotes_nothing(topic: str, value: object, sentence: str) -> None:
    event = Event(topic, "", value if isinstance(value, bytes) else json.dumps(value).encode())
    with pytest.raises(Rejected) as caught:
        to_submission(event)
    assert caught.value.reason == RejectionReason.MALFORMED
    assert sentence in caught.value.hint and "Jane" not in caught.value.hint


@pytest.mark.parametrize(
    ("headers", "sentence"),
    [
        ({"document-id": " "}, "`document-id` must not be empty."),
        ({"label-source": "Jane Doe"}, "`label-source` must have at most 64 characters"),
        ({"kind": "Jane"}, "The header `kind` must be `document` on document.submitted.v1. Examples, tests and"),
        ({"draft-id": "Jane"}, "`draft-id` must be `drf_`"),
    ],
)
def test_the_hint_names_the_header(headers: dict[str, str], sentence: str) -> None:
    with pytest.raises(Rejected) as caught:
        to_submission(Event(SUBMITTED, "", b"# Memo", {"document-id": "memo-7", **headers}))
    assert sentence in caught.value.hint and "Jane" not in caught.value.hint


@pytest.mark.parametrize(
    "event",
    [
        json_event({"document_id": "a", "text": "x", "kind": "document"}, DELIVERABLES),
        Event(DELIVERABLES, "", b"# Memo", {"document-id": "a", "kind": "document"}),
    ],
)
def test_a_deliverable_must_not_be_of_another_kind(event: Event) -> None:
    with pytest.raises(Rejected, match=r"`kind` must be [`']deliverable"):
        to_submission(event)


def test_every_mistake_has_its_own_sentence() -> None:
    with pytest.raises(Rejected) as caught:
        to_submission(json_event({"text": 42, "kind": "novel"}))
    assert caught.value.hint.removesuffix(OTHER_TOPICS).replace(OTHER_TOPICS, "").count(".") == 3


def test_a_redelivery_has_the_same_key_unless_the_position_or_the_value_differs() -> None:
    first, again, other = (
        to_receipt(json_event({"document_id": text}, offset=3), b"d" * 32) for text in ("a", "a", "b")
    )
    assert first.key == again.key and first.submission_id == again.submission_id
    assert first.key != other.key
    assert first.key != to_receipt(json_event({"document_id": "a"}, offset=4), b"d" * 32).key


@pytest.mark.parametrize("topic", KINDS)
def test_a_tombstone_names_its_document_by_header_or_by_key(topic: str) -> None:
    assert to_external_id(Event(topic, "memo-7", None)) == "memo-7"
    assert to_external_id(Event(topic, "other", None, {"Document-Id": "memo-7"})) == "memo-7"
    with pytest.raises(Rejected):
        to_external_id(Event(topic, "", None))


def test_publishes_reasons_by_the_names_of_the_contract() -> None:
    for reason in RejectionReason:
        outcome = Rejection("sub_1", "doc_1", reason, "hint", "", Labels(), "", 1)
        message = from_outcome(outcome)[2]
        assert isinstance(message, documents_pb2.DocumentRejected)
        assert documents_pb2.RejectionReason.Name(message.reason) == f"REJECTION_REASON_{reason}"


@pytest.mark.parametrize("topic", list(SCHEMAS))
def test_the_published_schema_file_is_the_schema_that_is_applied(topic: str) -> None:
    schema = json.loads((SCHEMA_FILES / f"{topic.removesuffix('.v1')}.schema.json").read_text())
    applied = {key: value for key, value in SCHEMAS[topic].model_json_schema().items() if key != "title"}
    assert {key: value for key, value in schema.items() if key not in ("$schema", "title")} == applied


def test_the_examples_of_the_documentation_behave_as_described() -> None:
    page = (SCHEMA_FILES.parents[2] / "docs" / "ingestion" / "submissions.md").read_text()
    good = page.partition("```json\n")[2].partition("```")[0].splitlines()
    bad = re.findall(r"^\| `(\{.*\})` \| (.*) \|$", page, re.MULTILINE)
    assert len(good) == 3 and len(bad) == 4
    for topic, line in zip((SUBMITTED, EXAMPLES, TESTS), good, strict=True):
        to_submission(Event(topic, "", line.encode()))
    for event, hint in bad:
        with pytest.raises(Rejected) as caught:
            to_submission(Event(SUBMITTED, "", event.encode()))
        assert caught.value.hint.startswith(hint)


@pytest.mark.parametrize(
    ("event", "claimed_id"),
    [
        (Event(SUBMITTED, "key-1", b"{broken", {}), "key-1"),
        (Event(SUBMITTED, "", b"{broken", {"document-id": "memo-7"}), "memo-7"),
        (json_event({"document_id": "bad-3", "text": 42}), "bad-3"),
        (Event(SUBMITTED, "", b"[1]", {}), ""),
        (Event(SUBMITTED, "", b'{"document_id": 7}', {}), ""),
        (Event(SUBMITTED, "x" * 600, b'{"document_id": "NUL\\u0000"}', {}), ""),
    ],
)
def test_a_malformed_event_is_found_by_whatever_id_it_names(event: Event, claimed_id: str) -> None:
    assert to_claimed_id(event) == claimed_id
