"""The ingestion service and a producer of events in this process, which keep what they are given."""

from collections.abc import Callable
from typing import Any

import grpc

from tailor.api.ingestion.v1 import ingestion_pb2, ingestion_pb2_grpc
from tailor.cli.records import Record


class FakeIngestion(ingestion_pb2_grpc.IngestionServiceServicer):
    """Stores the files that are streamed to it."""

    def __init__(self) -> None:
        self.headers: list[ingestion_pb2.DocumentHeader] = []
        self.files: list[bytes] = []
        self.submissions: dict[str, list[ingestion_pb2.Submission]] = {}

    def SubmitDocument(self, request_iterator: Any, context: Any) -> Any:
        parts = list(request_iterator)
        self.headers.append(parts[0].header)
        self.files.append(b"".join(part.chunk for part in parts[1:]))
        return ingestion_pb2.SubmitDocumentResponse(document_id="doc_9", rejection_reason="DUPLICATE")

    def GetSubmission(self, request: Any, context: Any) -> Any:
        if request.external_id not in self.submissions:
            context.abort(grpc.StatusCode.NOT_FOUND, "Nothing was published under this id.")
        return ingestion_pb2.GetSubmissionResponse(submissions=self.submissions[request.external_id])


class FakeProducer:
    """Stores records. A record counts as acknowledged when its wait was called."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.acknowledged = 0

    def send(self, record: Record) -> Callable[[], None]:
        self.records.append(record)

        def wait() -> None:
            self.acknowledged += 1

        return wait
