"""A submission as a Kafka record, or as a gRPC stream if it is too large for a record."""

import json
import mimetypes
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tailor.api.common.v1 import common_pb2
from tailor.api.ingestion.v1 import ingestion_pb2
from tailor.cli.submissions import Description, FileReference, FileSubmission
from tailor.events.envelope import new_id

SUBMITTED = "document.submitted.v1"
TOPICS = {
    "document": SUBMITTED,
    "example": "example.published.v1",
    "test": "test.published.v1",
    "deliverable": "deliverable.published.v1",
}
# Larger files go through ingestion's SubmitDocument.
MAX_VALUE_BYTES = 512 * 1024
CHUNK_BYTES = 512 * 1024
JSON_TYPE = "application/json"
FILE_TYPE = "application/octet-stream"
CONTENT_TYPES = {
    ".md": "text/markdown",
    ".txt": "text/plain",
    ".eml": "message/rfc822",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
}


@dataclass(frozen=True)
class Record:
    """The content of one Kafka record; a record without a value is a tombstone."""

    topic: str
    key: str
    value: bytes | None
    headers: Mapping[str, str]


def to_record(submission: FileSubmission) -> Record:
    """The file as the value, described by headers. A JSON file with `text` or `prompt` becomes JSON by the published schema."""
    data = submission.path.read_bytes()
    document = _json_submission(submission, data)
    topic = _topic(document or {"kind": submission.description.kind})
    if document is not None:
        value = json.dumps(document, ensure_ascii=False).encode()
        return Record(topic, submission.document_id, value, {"content-type": JSON_TYPE})
    return Record(topic, submission.document_id, data, _headers(submission))


def to_reference(reference: FileReference) -> Record:
    """The file's address as JSON by the published schema."""
    description = reference.description
    document = {"document_id": reference.document_id, "uri": reference.uri} | _fields(description, description.labels)
    value = json.dumps(document, ensure_ascii=False).encode()
    return Record(_topic(document), reference.document_id, value, {"content-type": JSON_TYPE})


def to_tombstone(document_id: str, kind: str | None = None) -> Record:
    """A tombstone under the publisher's own id: it requests the erasure of a document of this kind."""
    return Record(_topic({"kind": kind}), document_id, None, {"document-id": document_id})


def to_stream(submission: FileSubmission) -> Iterator[ingestion_pb2.SubmitDocumentRequest]:
    """Yield the header, then the file in chunks."""
    description = submission.description
    header = ingestion_pb2.DocumentHeader(
        external_id=submission.document_id,
        file_name=submission.path.name,
        kind=common_pb2.Kind.Value(f"KIND_{(description.kind or 'unspecified').upper()}"),
        labels=common_pb2.Labels(**description.labels),
        draft_id=description.draft_id or "",
        request_id=new_id("req"),
    )
    yield ingestion_pb2.SubmitDocumentRequest(header=header)
    with submission.path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield ingestion_pb2.SubmitDocumentRequest(chunk=chunk)


def is_large(submission: FileSubmission) -> bool:
    """True if the file does not fit into a record."""
    return submission.path.stat().st_size > MAX_VALUE_BYTES


def _headers(submission: FileSubmission) -> dict[str, str]:
    description = submission.description
    headers = {
        "content-type": _content_type(submission),
        "document-id": submission.document_id,
        "file-name": submission.path.name,
        "kind": description.kind,
        "draft-id": description.draft_id,
    }
    labels = {f"label-{name}": value for name, value in description.labels.items()}
    return {name: value for name, value in (headers | labels).items() if value}


def _content_type(submission: FileSubmission) -> str:
    suffix = submission.path.suffix.lower()
    # A JSON file that is not a submission must not be parsed as one; ingestion knows its format by its name.
    if suffix == ".json":
        return FILE_TYPE
    return CONTENT_TYPES.get(suffix) or mimetypes.guess_type(submission.path.name)[0] or FILE_TYPE


def _json_submission(submission: FileSubmission, data: bytes) -> dict[str, Any] | None:
    if submission.path.suffix.lower() != ".json":
        return None
    try:
        document = json.loads(data)
    except ValueError:
        return None
    if not isinstance(document, dict) or not ({"text", "prompt"} & document.keys()):
        return None
    labels = (document.get("labels") or {}) | submission.description.labels
    return document | _fields(submission.description, labels) | {"document_id": submission.document_id}


def _topic(document: Mapping[str, Any]) -> str:
    """The topic of a document's kind; without one, a pair of prompt and answer is an example, one of prompt and reference a test."""
    kind = document.get("kind") or ("example" if "answer" in document else "test" if "reference" in document else "")
    return TOPICS.get(kind, SUBMITTED)


def _fields(description: Description, labels: Mapping[str, str]) -> dict[str, Any]:
    fields = {"kind": description.kind, "draft_id": description.draft_id, "labels": labels}
    return {name: value for name, value in fields.items() if value}
