"""What outsiders publish to the domain, and outcomes to events."""

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from typing import Literal, TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.ingestion.domain import (
    Accepted,
    File,
    Kind,
    Labels,
    Outcome,
    Parsed,
    Receipt,
    Reference,
    Submission,
    check_draft_id,
    check_external_id,
    check_labels,
    clean,
    keyed_digest,
    malformed,
    plain_name,
)
from services.ingestion.handlers import Intake, Withdrawals, take_in, withdraw
from services.ingestion.spans import Span
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import documents_pb2
from tailor.events.envelope import Event, decode, derive_id

SUBMITTED = "document.submitted.v1"
PUBLISHED = "deliverable.published.v1"
INGESTED = "document.ingested.v1"
REJECTED = "document.rejected.v1"

SLUG = r"^[a-z0-9-]{0,64}$"
MAX_URI = 4096

T = TypeVar("T")


class Strict(BaseModel):
    """No field but the named ones."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class PublishedLabels(Strict):
    """Slugs that say where a document belongs. They never hold personal data."""

    source: str = Field("", pattern=SLUG, description="System the document came from, such as `sharepoint`.")
    department: str = Field("", pattern=SLUG, description="Department that owns it, such as `risk`.")
    confidentiality: str = Field("", pattern=SLUG, description="Confidentiality class, such as `internal`.")


class PublishedDocument(Strict):
    """A document: `text`, or `content_base64` with `file_name`, or `uri`, or `prompt` with `answer`."""

    document_id: str = Field(
        min_length=1, max_length=512, description="The publisher's own id; the same id again is a new version."
    )
    kind: Literal["document", "deliverable", "example"] = Field("document", description="What the document is.")
    text: str | None = Field(None, description="Markdown or plain text.")
    content_base64: str | None = Field(None, description="The bytes of a file.")
    uri: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_URI,
        description="Where the file lies: `s3://BUCKET/KEY` or `https://HOST/...`, each as far as the installation allows it.",
    )
    sha256: str = Field(
        "", pattern=r"^([0-9a-fA-F]{64})?$", description="With `uri`: SHA-256 of the file; other bytes are refused."
    )
    size_bytes: int | None = Field(
        None, ge=0, description="With `uri`: size of the file; one of another size is refused."
    )
    file_name: str | None = Field(None, max_length=512, description="The file's name; its ending tells the format.")
    content_type: str | None = Field(
        None, max_length=256, description="The file's media type, such as `application/pdf`."
    )
    prompt: str | None = Field(None, description="For an example: what a person asked.")
    answer: str | None = Field(None, description="For an example: what a person answered.")
    labels: PublishedLabels = PublishedLabels()
    draft_id: str = Field(
        "", pattern=r"^(drf_[0-9a-f]{32})?$", description="For a deliverable: the draft that it was made out of."
    )


class PublishedDeliverable(PublishedDocument):
    """A finished deliverable, and the draft that it was made out of."""

    kind: Literal["deliverable"] = Field("deliverable", description="Always a deliverable.")


ENVELOPES: dict[str, type[PublishedDocument]] = {SUBMITTED: PublishedDocument, PUBLISHED: PublishedDeliverable}


def handlers(intake: Intake, withdrawals: Withdrawals) -> Mapping[str, Callable[[Event], None]]:
    """The handler of each topic: those that outsiders write, and what became of documents behind ingestion."""

    def handle(event: Event) -> None:
        if event.value is None:
            withdraw(withdrawals, to_receipt(event, intake.digest_key, to_external_id))
        else:
            take_in(intake, to_receipt(event, intake.digest_key, to_submission))

    def on_rejected(event: Event) -> None:
        rejected = decode(event, documents_pb2.DocumentRejected)
        if rejected.stage == documents_pb2.STAGE_ANONYMIZATION:
            intake.catalogue.release(rejected.document_id, rejected.submission_id)

    return {SUBMITTED: handle, PUBLISHED: handle, REJECTED: on_rejected}


def to_receipt(event: Event, digest_key: bytes, read: Callable[[Event], T]) -> Receipt[T]:
    """The event's key: its place, and a digest of its value, for a restored broker may give a place twice."""
    value = keyed_digest(digest_key, "event", event.value or b"")
    parts = (event.topic, event.partition, event.offset, event.timestamp_ms, value)
    return Receipt(derive_id("key", *parts), derive_id("sub", *parts), derive_id("doc", *parts), lambda: read(event))


def to_external_id(tombstone: Event) -> str:
    """The publisher's id of the document that a tombstone withdraws: its `document-id` header, or else its key."""
    headers = _headers(tombstone)
    return check_external_id(headers.get("document-id") or tombstone.key)


def _headers(event: Event) -> dict[str, str]:
    return {name.lower(): value for name, value in event.headers.items()}


def to_submission(event: Event) -> Submission:
    """Read an event: the file itself where a `document-id` header stands, JSON by the published schema otherwise."""
    headers = _headers(event)
    if "document-id" in headers:
        return _from_headers(event, headers)
    try:
        content = ENVELOPES[event.topic].model_validate(json.loads(event.value or b""))
    except (ValidationError, UnicodeDecodeError, ValueError, RecursionError):
        raise malformed(
            "The event is neither JSON by the published schema nor a file with a document-id header."
        ) from None
    return _from_json(content)


def _from_headers(event: Event, headers: Mapping[str, str]) -> Submission:
    file = File(event.value or b"", plain_name(headers.get("file-name", "")), headers.get("content-type", ""))
    kind = _kind(event.topic, headers.get("kind", ""), file)
    return Submission(
        external_id=check_external_id(headers["document-id"]),
        kind=kind,
        labels=check_labels(
            *(headers.get(f"label-{name}", "") for name in ("source", "department", "confidentiality"))
        ),
        content=file,
        draft_id=check_draft_id(headers.get("draft-id", ""), kind),
    )


def _kind(topic: str, given: str, file: File) -> Kind:
    if given not in ("", *Kind):
        raise malformed("The kind is document, deliverable or example.")
    if topic == PUBLISHED:
        if given not in ("", Kind.DELIVERABLE):
            raise malformed("What is published as a deliverable is one.")
        return Kind.DELIVERABLE
    return Kind(given) if given else Kind.EXAMPLE if _is_example(file) else Kind.DOCUMENT


def _is_example(file: File) -> bool:
    """True of a JSON file that is an object of prompt and answer."""
    if not (file.name.lower().endswith(".json") or file.content_type.startswith("application/json")):
        return False
    try:
        content = json.loads(file.data)
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and set(content) - {"kind"} == {"prompt", "answer"}


def _from_json(content: PublishedDocument) -> Submission:
    labels = Labels(content.labels.source, content.labels.department, content.labels.confidentiality)
    kind = Kind(content.kind)
    draft_id = check_draft_id(content.draft_id, kind)
    return Submission(check_external_id(content.document_id), kind, labels, _content(content, kind), draft_id)


def _content(content: PublishedDocument, kind: Kind) -> File | Reference | Parsed:
    ways = ("text", "content_base64", "uri", "prompt", "answer")
    given = {name for name in ways if getattr(content, name) is not None}
    name, content_type = plain_name(content.file_name or ""), content.content_type or ""
    if given != {"uri"} and (content.sha256 or content.size_bytes is not None):
        raise malformed("sha256 and size_bytes belong to uri.")
    if given == {"prompt", "answer"} and kind is Kind.EXAMPLE:
        return Parsed(clean(content.answer or ""), "json", clean(content.prompt or "").strip())
    if given == {"text"} and kind is not Kind.EXAMPLE:
        return Parsed(clean(content.text or ""), "json")
    if given == {"uri"}:
        return Reference(content.uri or "", name, content_type, content.sha256, content.size_bytes)
    if given != {"content_base64"}:
        raise malformed(
            "Send text, or content_base64 with file_name, or uri, or for an example prompt and answer; one of these alone."
        )
    try:
        data = base64.b64decode(content.content_base64 or "", validate=True)
    except (binascii.Error, ValueError):
        raise malformed("content_base64 is not base64.") from None
    return File(data, name, content_type)


def to_event(outcome: Outcome) -> tuple[str, str, Message, str]:
    """Topic, key, message and event id of an outcome; the same outcome gives the same."""
    moment = Timestamp()
    moment.FromMilliseconds(outcome.time_ms)
    labels = common_pb2.Labels(
        source=outcome.labels.source,
        department=outcome.labels.department,
        confidentiality=outcome.labels.confidentiality,
    )
    if isinstance(outcome, Accepted):
        topic = INGESTED
        message: Message = documents_pb2.DocumentIngested(
            document_id=outcome.document_id,
            submission_id=outcome.submission_id,
            version=common_pb2.Version(sequence=outcome.sequence, digest=outcome.digest),
            kind=common_pb2.Kind.Value(f"KIND_{outcome.kind.upper()}"),
            labels=labels,
            text=common_pb2.ObjectRef(
                uri=outcome.text.uri, sha256=outcome.text.sha256, size_bytes=outcome.text.size_bytes
            ),
            format=outcome.format,
            char_count=outcome.char_count,
            draft_id=outcome.draft_id,
            create_time=moment,
            spans=map(_span, outcome.spans),
        )
    else:
        topic = REJECTED
        message = documents_pb2.DocumentRejected(
            document_id=outcome.document_id,
            submission_id=outcome.submission_id,
            stage=documents_pb2.STAGE_INGESTION,
            reason=documents_pb2.RejectionReason.Value(f"REJECTION_REASON_{outcome.reason}"),
            hint=outcome.hint,
            duplicate_of=outcome.duplicate_of,
            labels=labels,
            format=outcome.format,
            create_time=moment,
        )
    return topic, outcome.document_id, message, derive_id("evt", topic, outcome.submission_id)


def _span(span: Span) -> common_pb2.Span:
    kind = common_pb2.SpanKind.Value(f"SPAN_KIND_{span.kind.upper()}")
    return common_pb2.Span(kind=kind, number=span.number, level=span.level, start=span.start, end=span.end)
