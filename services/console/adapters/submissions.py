"""What became of a document, by its publisher's own id, and replays: what only ingestion can answer and do."""

from collections.abc import Callable

import grpc

from tailor.api.ingestion.v1 import ingestion_pb2, ingestion_pb2_grpc, replay_pb2, replay_pb2_grpc
from tailor.events.envelope import new_id
from tailor.rpc.status import wire_errors

SECONDS = 4
REPLAY_SECONDS = 15  # waits until the policy has reached ingestion


def submission_finder(channel: grpc.Channel) -> Callable[[str, str], ingestion_pb2.GetSubmissionResponse]:
    """A function that takes the id and the key of the engineer who asks, and raises NotFound for an unknown id."""
    stub = ingestion_pb2_grpc.IngestionServiceStub(channel)

    def find(external_id: str, key_id: str) -> ingestion_pb2.GetSubmissionResponse:
        request = ingestion_pb2.GetSubmissionRequest(external_id=external_id, key_id=key_id)
        with wire_errors("ingestion"):
            return stub.GetSubmission(request, timeout=SECONDS)

    return find


def replay_starter(channel: grpc.Channel) -> Callable[[str, str], None]:
    """A function that takes the barrier digest in force and the visitor's key. It raises FailedPrecondition (REPLAY_RUNNING)."""
    stub = replay_pb2_grpc.ReplayServiceStub(channel)

    def start(barrier_digest: str, key_id: str) -> None:
        request = replay_pb2.StartReplayRequest(
            request_id=new_id("req"), barrier_digest=barrier_digest, requester=key_id
        )
        with wire_errors("ingestion"):
            stub.StartReplay(request, timeout=REPLAY_SECONDS)

    return start
