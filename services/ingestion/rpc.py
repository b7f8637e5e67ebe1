"""The gRPC face of ingestion: large files, streamed."""

from collections.abc import Iterator

import grpc

from services.ingestion.domain import (
    File,
    Kind,
    Receipt,
    Refused,
    Rejected,
    Submission,
    check_draft_id,
    check_external_id,
    check_labels,
    plain_name,
)
from services.ingestion.handlers import Intake, take_in
from tailor.api.common.v1 import common_pb2
from tailor.api.ingestion.v1 import ingestion_pb2, ingestion_pb2_grpc
from tailor.errors import InvalidArgument, Reason, ResourceExhausted
from tailor.events.envelope import derive_id
from tailor.rpc.auth import current_caller

MAX_REQUEST_ID = 128
KINDS = {
    common_pb2.KIND_UNSPECIFIED: Kind.DOCUMENT,
    common_pb2.KIND_DOCUMENT: Kind.DOCUMENT,
    common_pb2.KIND_DELIVERABLE: Kind.DELIVERABLE,
    common_pb2.KIND_EXAMPLE: Kind.EXAMPLE,
}


class IngestionServicer(ingestion_pb2_grpc.IngestionServiceServicer):
    """Translates calls to handlers."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    def SubmitDocument(
        self, request_iterator: Iterator[ingestion_pb2.SubmitDocumentRequest], context: grpc.ServicerContext
    ) -> ingestion_pb2.SubmitDocumentResponse:
        """Take one file in."""
        del context
        header = _header(request_iterator)
        submission = _submission(header, _bytes(request_iterator, self._intake.max_file_bytes))
        parts = ("request", current_caller().key_id or current_caller().name, header.request_id)
        receipt = Receipt(
            derive_id("key", *parts), derive_id("sub", *parts), derive_id("doc", *parts), lambda: submission
        )
        outcome = take_in(self._intake, receipt)
        reason = outcome.reason if isinstance(outcome, Refused) else ""
        return ingestion_pb2.SubmitDocumentResponse(
            document_id=outcome.document_id, submission_id=outcome.submission_id, rejection_reason=reason
        )


def _header(parts: Iterator[ingestion_pb2.SubmitDocumentRequest]) -> ingestion_pb2.DocumentHeader:
    first = next(parts, None)
    if first is None or first.WhichOneof("part") != "header":
        raise InvalidArgument(Reason.NO_HEADER, "The first message is the header.")
    if not 0 < len(first.header.request_id) <= MAX_REQUEST_ID:
        raise InvalidArgument(Reason.NO_REQUEST_ID, f"Choose a request_id of 1 to {MAX_REQUEST_ID} characters.")
    return first.header


def _bytes(parts: Iterator[ingestion_pb2.SubmitDocumentRequest], limit: int) -> bytes:
    data = bytearray()
    for part in parts:
        if part.WhichOneof("part") != "chunk":
            raise InvalidArgument(Reason.SECOND_HEADER, "After the header come bytes alone.")
        data += part.chunk
        if len(data) > limit:
            raise ResourceExhausted(Reason.FILE_TOO_LARGE, f"A file has at most {limit} bytes; publish it in parts.")
    return bytes(data)


def _submission(header: ingestion_pb2.DocumentHeader, data: bytes) -> Submission:
    try:
        kind = KINDS[header.kind]
        labels = check_labels(header.labels.source, header.labels.department, header.labels.confidentiality)
        external_id, draft_id = check_external_id(header.external_id), check_draft_id(header.draft_id, kind)
    except KeyError:
        raise InvalidArgument(Reason.INVALID_KIND, "The kind is not one of the contract.") from None
    except Rejected as rejected:
        raise InvalidArgument(Reason.INVALID_HEADER, rejected.hint) from None
    return Submission(external_id, kind, labels, File(data, plain_name(header.file_name)), draft_id)
