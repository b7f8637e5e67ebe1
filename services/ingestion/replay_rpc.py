"""The gRPC methods that start and follow replays."""

import grpc

from services.ingestion.adapters.barrier import CurrentBarrier
from services.ingestion.adapters.replays import SqlReplays
from services.ingestion.replay_domain import DOCUMENTS_PER_ERASURE, Replay
from services.ingestion.wire import supersede_id
from tailor.api.ingestion.v1 import replay_pb2, replay_pb2_grpc
from tailor.codec import encode
from tailor.errors import FailedPrecondition, InvalidArgument, NotFound, Reason, Unavailable
from tailor.events.envelope import derive_id
from tailor.rpc.auth import current_caller

MAX_REQUEST_ID = 128
MAX_ERASURES = 100
# How long a call waits for a policy that was applied a moment ago.
POLICY_SECONDS = 10.0


class ReplayServicer(replay_pb2_grpc.ReplayServiceServicer):
    """Translates calls. `barrier` tells the policy and detectors under which documents pass now."""

    def __init__(self, replays: SqlReplays, barrier: CurrentBarrier) -> None:
        self._replays = replays
        self._barrier = barrier

    def StartReplay(
        self, request: replay_pb2.StartReplayRequest, context: grpc.ServicerContext
    ) -> replay_pb2.StartReplayResponse:
        del context
        if not 0 < len(request.request_id) <= MAX_REQUEST_ID:
            raise InvalidArgument(Reason.NO_REQUEST_ID, f"`request_id` must have 1 to {MAX_REQUEST_ID} characters.")
        barrier = request.barrier_digest or self._barrier()
        if not barrier:
            raise FailedPrecondition(
                Reason.NO_POLICY, "Anonymization has not published its policy yet. Start it, and try again."
            )
        if not self._barrier.wait_for(barrier, POLICY_SECONDS):
            raise Unavailable(
                Reason.NOT_CAUGHT_UP,
                "Ingestion does not know the policy of `barrier_digest`, or another one is in force. "
                "`tailor policy list` shows which. Try again.",
            )
        caller = current_caller()
        # Only the console may name another caller than itself.
        name = (caller.kind == "service" and request.requester) or caller.key_id or caller.name
        replay_id = derive_id("rpl", name, request.request_id)
        replay = self._replays.start(replay_id, barrier, name, all_documents=request.all_documents)
        return replay_pb2.StartReplayResponse(replay=_from_replay(replay))

    def GetReplay(
        self, request: replay_pb2.GetReplayRequest, context: grpc.ServicerContext
    ) -> replay_pb2.GetReplayResponse:
        del context
        return replay_pb2.GetReplayResponse(replay=_from_replay(self._find(request.replay_id)))

    def ListReplays(
        self, request: replay_pb2.ListReplaysRequest, context: grpc.ServicerContext
    ) -> replay_pb2.ListReplaysResponse:
        del context
        page = self._replays.list(request)
        return replay_pb2.ListReplaysResponse(replays=map(_from_replay, page.items), next_page_token=page.next_token)

    def CancelReplay(
        self, request: replay_pb2.CancelReplayRequest, context: grpc.ServicerContext
    ) -> replay_pb2.CancelReplayResponse:
        del context
        self._find(request.replay_id)
        self._replays.cancel(request.replay_id)
        return replay_pb2.CancelReplayResponse(replay=_from_replay(self._find(request.replay_id)))

    def ListReplayDocuments(
        self, request: replay_pb2.ListReplayDocumentsRequest, context: grpc.ServicerContext
    ) -> replay_pb2.ListReplayDocumentsResponse:
        del context
        self._find(request.replay_id)
        page = self._replays.list_documents(request)
        return replay_pb2.ListReplayDocumentsResponse(documents=page.items, next_page_token=page.next_token)

    def _find(self, replay_id: str) -> Replay:
        replay = self._replays.find(replay_id)
        if replay is None:
            raise NotFound(
                Reason.UNKNOWN_REPLAY, "This replay does not exist. `tailor replay list` lists the known ones."
            )
        return replay


def _from_replay(replay: Replay) -> replay_pb2.Replay:
    batches = min(-(-replay.documents // DOCUMENTS_PER_ERASURE), MAX_ERASURES)
    erasure_ids = [supersede_id(replay.replay_id, 1 + batch * DOCUMENTS_PER_ERASURE) for batch in range(batches)]
    return encode(replay_pb2.Replay, replay, barrier_digest=replay.barrier, erasure_ids=erasure_ids)
