"""The gRPC methods of ingestion: a file that is too large for an event arrives as a stream."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import grpc

from services.ingestion.domain import (
    DocumentKind,
    File,
    Rejected,
    Rejection,
    Submission,
    base_name,
    check_draft_id,
    check_external_id,
    check_label,
)
from services.ingestion.handlers import Intake, find_submissions, ingest
from services.ingestion.wire import LABELS, from_record, make_receipt
from tailor.api.common.v1 import common_pb2
from tailor.api.ingestion.v1 import ingestion_pb2, ingestion_pb2_grpc
from tailor.errors import InvalidArgument, Reason, ResourceExhausted
from tailor.rpc.auth import current_caller
from tailor.values import Labels

MAX_REQUEST_ID = 128
KINDS = {
    common_pb2.KIND_UNSPECIFIED: DocumentKind.DOCUMENT,
    common_pb2.KIND_DOCUMENT: DocumentKind.DOCUMENT,
    common_pb2.KIND_DELIVERABLE: DocumentKind.DELIVERABLE,
    common_pb2.KIND_EXAMPLE: DocumentKind.EXAMPLE,
}


class IngestionServicer(ingestion_pb2_grpc.IngestionServiceServicer):
    """Translates calls for the handlers. `admit` raises ResourceExhausted while publishers have to slow down."""

    def __init__(self, intake: Intake, admit: Callable[[], None] = lambda: None) -> None:
        self._intake = intake
        self._admit = admit

    def SubmitDocument(
        self, request_iterator: Iterator[ingestion_pb2.SubmitDocumentRequest], context: grpc.ServicerContext
    ) -> ingestion_pb2.SubmitDocumentResponse:
        """Ingest one file. Idempotent for the same caller and request id."""
        del context
        self._admit()
        header = _header(request_iterator)
        caller = current_caller()
        submission = _submission(header, _bytes(request_iterator, self._intake.max_file_bytes), caller.key_id)
        receipt = make_receipt("request", caller.key_id or caller.name, header.request_id)
        receipt = replace(receipt, claimed_id=submission.external_id, publisher=caller.key_id)
        outcome = ingest(self._intake, receipt, submission)
        reason = outcome.reason if isinstance(outcome, Rejection) else ""
        return ingestion_pb2.SubmitDocumentResponse(
            document_id=outcome.document_id, submission_id=outcome.submission_id, rejection_reason=reason
        )

    def GetSubmission(
        self, request: ingestion_pb2.GetSubmissionRequest, context: grpc.ServicerContext
    ) -> ingestion_pb2.GetSubmissionResponse:
        """What became of a document, by its publisher's own id."""
        del context
        try:
            external_id = check_external_id(request.external_id, "external_id")
        except Rejected as rejected:
            raise InvalidArgument(Reason.INVALID_HEADER, rejected.hint) from None
        records = find_submissions(self._intake.catalogue, external_id, _publisher(request.key_id))
        return ingestion_pb2.GetSubmissionResponse(submissions=map(from_record, records))


def _publisher(key_id: str) -> str | None:
    """The key whose submissions the caller may see besides events; None for all. The console asks for its visitor."""
    caller = current_caller()
    if caller.kind == "service":
        return key_id or None
    return None if caller.role == common_pb2.Role.Name(common_pb2.ROLE_OPERATOR) else caller.key_id


def _header(parts: Iterator[ingestion_pb2.SubmitDocumentRequest]) -> ingestion_pb2.DocumentHeader:
    first = next(parts, None)
    if first is None or first.WhichOneof("part") != "header":
        raise InvalidArgument(Reason.NO_HEADER, "The first message must contain `header`.")
    if not 0 < len(first.header.request_id) <= MAX_REQUEST_ID:
        raise InvalidArgument(Reason.NO_REQUEST_ID, f"`request_id` must have 1 to {MAX_REQUEST_ID} characters.")
    return first.header


def _bytes(parts: Iterator[ingestion_pb2.SubmitDocumentRequest], limit: int) -> bytes:
    data = bytearray()
    for part in parts:
        if part.WhichOneof("part") != "chunk":
            raise InvalidArgument(Reason.SECOND_HEADER, "Every message after the first must contain `chunk`.")
        data += part.chunk
        if len(data) > limit:
            raise ResourceExhausted(
                Reason.FILE_TOO_LARGE, f"The file is larger than {limit} bytes. Publish it in parts."
            )
    return bytes(data)


def _submission(header: ingestion_pb2.DocumentHeader, data: bytes, publisher: str) -> Submission:
    kind = KINDS.get(header.kind)
    if kind is None:
        raise InvalidArgument(Reason.INVALID_KIND, f"`kind` {header.kind} is not in the contract.")
    try:
        labels = {name: check_label(getattr(header.labels, name), f"labels.{name}") for name in LABELS}
        return Submission(
            external_id=check_external_id(header.external_id, "external_id"),
            kind=kind,
            labels=Labels(**labels, publisher=publisher),
            content=File(data, base_name(header.file_name)),
            draft_id=check_draft_id(header.draft_id, kind, "draft_id"),
        )
    except Rejected as rejected:
        raise InvalidArgument(Reason.INVALID_HEADER, rejected.hint) from None
