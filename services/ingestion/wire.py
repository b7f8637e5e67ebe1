"""Translates events to the domain and back: what publishers send, and the outcomes that ingestion publishes."""

import base64
import binascii
import json
import time
from collections.abc import Mapping

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from services.ingestion.domain import (
    Acceptance,
    DocumentKind,
    File,
    FileReference,
    Outcome,
    ParsedText,
    Receipt,
    Rejected,
    Rejection,
    Submission,
    SubmissionRecord,
    base_name,
    check_draft_id,
    check_external_id,
    check_label,
    clean,
    keyed_digest,
    malformed,
)
from services.ingestion.golden import to_golden
from services.ingestion.replay_domain import DOCUMENTS_PER_ERASURE
from services.ingestion.schema import (
    KINDS,
    OTHER_TOPICS,
    PUBLISHERS,
    SUBMITTED,
    PublishedDeliverable,
    PublishedEvent,
    PublishedExample,
    PublishedTest,
    read_published,
)
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import documents_pb2
from tailor.api.ingestion.v1 import ingestion_pb2
from tailor.codec import encode
from tailor.events.envelope import Event, derive_id
from tailor.values import Labels

INGESTED = "document.ingested.v1"
REJECTED = "document.rejected.v1"
LABELS = ("source", "department", "confidentiality")
FILE_FIELDS = ("content_base64", "uri")


def make_receipt(*parts: object) -> Receipt:
    """The receipt of the submission that the parts identify."""
    return Receipt(derive_id("key", *parts), derive_id("sub", *parts), derive_id("doc", *parts))


def supersede_id(replay_id: str, number: int) -> str:
    """The erasure under which the n-th document of a replay supersedes its earlier versions; a batch of documents shares one."""
    return derive_id("ers", "replay", replay_id, (number - 1) // DOCUMENTS_PER_ERASURE)


def own_supersede_id(barrier: str) -> str:
    """The same for a document that its owner publishes again without a replay: what is published within a minute shares one."""
    return derive_id("ers", "published again", barrier, int(time.time()) // 60)


def to_receipt(event: Event, digest_key: bytes) -> Receipt:
    """The receipt of an event: its position in the topic and a digest of its value, because a restored broker can reuse positions."""
    value = keyed_digest(digest_key, "event", event.value or b"")
    return make_receipt(event.topic, event.partition, event.offset, event.timestamp_ms, value)


def to_external_id(tombstone: Event) -> str:
    """The publisher's id of the document to withdraw: the `document-id` header, or else the key. Raises Rejected if it is invalid."""
    header = _headers(tombstone).get("document-id")
    return check_external_id(header, "document-id") if header else check_external_id(tombstone.key, "key")


def to_claimed_id(event: Event) -> str:
    """The publisher's id in an event that cannot be read otherwise: header, field of the JSON, or key; empty if none is valid."""
    candidates = [_headers(event).get("document-id"), _document_id_of(event.value or b""), event.key]
    for candidate in candidates:
        if candidate:
            try:
                return check_external_id(candidate, "document_id")
            except Rejected:
                continue
    return ""


def _document_id_of(value: bytes) -> str | None:
    try:
        content = json.loads(value)
    except (ValueError, RecursionError):
        return None
    document_id = content.get("document_id") if isinstance(content, dict) else None
    return document_id if isinstance(document_id, str) else None


def to_submission(event: Event) -> Submission:
    """Read an event: a file if it has a `document-id` header, otherwise JSON by the published schema. Raises Rejected (MALFORMED)."""
    headers = _headers(event)
    if "document-id" in headers:
        return _from_headers(event, headers)
    published = read_published(event.topic, event.value or b"")
    return _from_json(published, KINDS[event.topic], PUBLISHERS[event.topic])


def _headers(event: Event) -> dict[str, str]:
    return {name.lower(): value for name, value in event.headers.items()}


def _from_headers(event: Event, headers: Mapping[str, str]) -> Submission:
    file = File(event.value or b"", base_name(headers.get("file-name", "")), headers.get("content-type", ""))
    kind = KINDS[event.topic]
    if headers.get("kind", "") not in ("", kind):
        hint = f"The header `kind` must be `{kind}` on {event.topic}."
        raise malformed(f"{hint} {OTHER_TOPICS}" if event.topic == SUBMITTED else hint)
    labels = {name: check_label(headers.get(f"label-{name}", ""), f"label-{name}") for name in LABELS}
    return Submission(
        external_id=check_external_id(headers["document-id"], "document-id"),
        kind=kind,
        labels=Labels(**labels, publisher=PUBLISHERS[event.topic]),
        content=file,
        draft_id=check_draft_id(headers.get("draft-id", ""), kind, "draft-id"),
    )


def _from_json(published: PublishedEvent, kind: DocumentKind, publisher: str) -> Submission:
    return Submission(
        external_id=check_external_id(published.document_id, "document_id"),
        kind=kind,
        labels=Labels(**published.labels.model_dump(), publisher=publisher),
        content=_content(published),
        draft_id=published.draft_id if isinstance(published, PublishedDeliverable) else "",
    )


def _content(published: PublishedEvent) -> File | FileReference | ParsedText:
    name, content_type = base_name(published.file_name or ""), published.content_type or ""
    _check_content(published)
    if published.uri is not None:
        return FileReference(published.uri, name, content_type, published.sha256, published.size_bytes)
    if published.content_base64 is not None:
        return File(_decode(published.content_base64), name, content_type)
    if isinstance(published, PublishedTest):
        insights = published.key_insights
        return to_golden(published.prompt, published.reference, insights.model_dump() if insights else None)
    if isinstance(published, PublishedExample):
        return ParsedText(clean(published.answer or ""), "json", clean(published.prompt or "").strip())
    return ParsedText(clean(getattr(published, "text", None) or ""), "json")


def _check_content(published: PublishedEvent) -> None:
    """Raise Rejected unless there is exactly one content."""
    own = [name for name in published.CONTENT if getattr(published, name) is not None]
    files = [name for name in FILE_FIELDS if getattr(published, name) is not None]
    wanted = " and ".join(f"`{name}`" for name in published.CONTENT)
    if len(files) + bool(own) > 1:
        named = ", ".join(f"`{name}`" for name in (*own, *files))
        raise malformed(f"The event has several contents ({named}). Send only one of them.")
    if not files and len(own) < len(published.CONTENT):
        raise malformed(f"The event has no content. Send {wanted}, `content_base64` or `uri`.")
    if files and getattr(published, "key_insights", None) is not None:
        raise malformed("The file of a test has its own `reference` and `key_insights`.")
    if "uri" not in files and published.sha256:
        raise malformed("`sha256` is allowed only with `uri`.")
    if "uri" not in files and published.size_bytes is not None:
        raise malformed("`size_bytes` is allowed only with `uri`.")


def _decode(content: str) -> bytes:
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        raise malformed("`content_base64` is not valid base64.") from None


def from_outcome(outcome: Outcome) -> tuple[str, str, Message, str]:
    """Topic, key, message and event id of an outcome. The same outcome always gives the same event."""
    if isinstance(outcome, Acceptance):
        topic, message = INGESTED, _from_acceptance(outcome)
    else:
        topic, message = REJECTED, _from_rejection(outcome)
    return topic, outcome.document_id, message, derive_id("evt", topic, outcome.submission_id)


def _from_acceptance(outcome: Acceptance) -> Message:
    version = encode(common_pb2.Version, outcome)
    create_time = _timestamp(outcome.time_ms)
    return encode(documents_pb2.DocumentIngested, outcome, version=version, create_time=create_time)


def _from_rejection(outcome: Rejection) -> Message:
    stage, create_time = documents_pb2.STAGE_INGESTION, _timestamp(outcome.time_ms)
    return encode(documents_pb2.DocumentRejected, outcome, stage=stage, create_time=create_time)


def from_record(record: SubmissionRecord) -> ingestion_pb2.Submission:
    """A submission as its publisher sees it."""
    outcome, later = record.outcome, record.later
    message = encode(ingestion_pb2.Submission, outcome, create_time=_timestamp(outcome.time_ms))
    if isinstance(outcome, Rejection):
        message.rejection_stage, message.rejection_reason = "ingestion", outcome.reason
    else:
        message.version = outcome.sequence
        if later is not None:
            message.rejection_stage, message.rejection_reason, message.hint = "anonymization", later.reason, later.hint
    return message


def _timestamp(time_ms: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMilliseconds(time_ms)
    return stamp
