"""A submission as it goes over Kafka, or over gRPC where it is too large for that."""

import json
import mimetypes
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tailor.api.common.v1 import common_pb2
from tailor.api.ingestion.v1 import ingestion_pb2
from tailor.cli.submissions import Reference, Submission
from tailor.events.envelope import new_id

SUBMITTED = "document.submitted.v1"
DELIVERABLES = "deliverable.published.v1"
# What a record may hold; larger files go through ingestion's SubmitDocument.
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
    """What one Kafka record is made of; without a value it is a tombstone."""

    topic: str
    key: str
    value: bytes | None
    headers: Mapping[str, str]


def to_record(submission: Submission) -> Record:
    """The file as the value with headers; a JSON submission (one with `text` or `prompt`) by the published schema."""
    data = submission.path.read_bytes()
    topic = DELIVERABLES if submission.description.draft_id else SUBMITTED
    document = _json_submission(submission, data)
    if document is not None:
        value = json.dumps(document, ensure_ascii=False).encode()
        return Record(topic, submission.document_id, value, {"content-type": JSON_TYPE})
    return Record(topic, submission.document_id, data, _headers(submission))


def to_reference(reference: Reference) -> Record:
    """Where the file lies, as JSON by the published schema."""
    said = reference.description
    given = {"kind": said.kind, "draft_id": said.draft_id, "labels": said.labels}
    document = {"document_id": reference.document_id, "uri": reference.uri}
    value = json.dumps(document | {name: value for name, value in given.items() if value}, ensure_ascii=False).encode()
    topic = DELIVERABLES if said.draft_id else SUBMITTED
    return Record(topic, reference.document_id, value, {"content-type": JSON_TYPE})


def to_tombstone(document_id: str) -> Record:
    """No value under the publisher's own id: the document is to be erased."""
    return Record(SUBMITTED, document_id, None, {"document-id": document_id})


def to_stream(submission: Submission) -> Iterator[ingestion_pb2.SubmitDocumentRequest]:
    """The file in parts, its header first."""
    said = submission.description
    header = ingestion_pb2.DocumentHeader(
        external_id=submission.document_id,
        file_name=submission.path.name,
        kind=common_pb2.Kind.Value(f"KIND_{(said.kind or 'unspecified').upper()}"),
        labels=common_pb2.Labels(**said.labels),
        draft_id=said.draft_id or "",
        request_id=new_id("req"),
    )
    yield ingestion_pb2.SubmitDocumentRequest(header=header)
    with submission.path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield ingestion_pb2.SubmitDocumentRequest(chunk=chunk)


def is_large(submission: Submission) -> bool:
    """True if the file does not fit into a record."""
    return submission.path.stat().st_size > MAX_VALUE_BYTES


def _headers(submission: Submission) -> dict[str, str]:
    said = submission.description
    named = {
        "content-type": _content_type(submission),
        "document-id": submission.document_id,
        "file-name": submission.path.name,
        "kind": said.kind,
        "draft-id": said.draft_id,
    }
    labels = {f"label-{name}": value for name, value in said.labels.items()}
    return {name: value for name, value in (named | labels).items() if value}


def _content_type(submission: Submission) -> str:
    suffix = submission.path.suffix.lower()
    # A JSON file that is no submission must not be taken for one; its name tells its format.
    if suffix == ".json":
        return FILE_TYPE
    return CONTENT_TYPES.get(suffix) or mimetypes.guess_type(submission.path.name)[0] or FILE_TYPE


def _json_submission(submission: Submission, data: bytes) -> dict[str, Any] | None:
    if submission.path.suffix.lower() != ".json":
        return None
    try:
        document = json.loads(data)
    except ValueError:
        return None
    if not isinstance(document, dict) or not ({"text", "prompt"} & document.keys()):
        return None
    said = submission.description
    labels = (document.get("labels") or {}) | said.labels
    given = {"kind": said.kind, "draft_id": said.draft_id, "labels": labels}
    return document | {name: value for name, value in given.items() if value} | {"document_id": submission.document_id}
