"""What became of a document, by its publisher's own id: a question that only ingestion can answer."""

from collections.abc import Callable

import grpc

from tailor.api.ingestion.v1 import ingestion_pb2, ingestion_pb2_grpc
from tailor.rpc.status import wire_errors

SECONDS = 4


def submission_finder(channel: grpc.Channel) -> Callable[[str, str], ingestion_pb2.GetSubmissionResponse]:
    """A function that takes the id and the key of the engineer who asks, and raises NotFound for an unknown id."""
    stub = ingestion_pb2_grpc.IngestionServiceStub(channel)

    def find(external_id: str, key_id: str) -> ingestion_pb2.GetSubmissionResponse:
        request = ingestion_pb2.GetSubmissionRequest(external_id=external_id, key_id=key_id)
        with wire_errors("ingestion"):
            return stub.GetSubmission(request, timeout=SECONDS)

    return find
