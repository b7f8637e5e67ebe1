"""The gRPC methods of the queue of drafts that experts judge."""

import grpc

from services.registry import wire
from services.registry.handlers import judging
from services.registry.handlers.judgements import identify_expert
from services.registry.ports import Begin
from services.registry.rules.judging import ExpertQueue
from tailor.api.registry.v1 import judging_pb2, judging_pb2_grpc
from tailor.rpc.auth import current_caller


class JudgingServicer(judging_pb2_grpc.JudgingServiceServicer):
    """Translates calls."""

    def __init__(self, begin: Begin) -> None:
        self._begin = begin

    def NextPair(
        self, request: judging_pb2.NextPairRequest, context: grpc.ServicerContext
    ) -> judging_pb2.NextPairResponse:
        del context
        expert_id, may_use = _expert(request.judged_by), current_caller().may_use
        queue = judging.next_pair(self._begin, request.specialist, expert_id, may_use)
        first, second = queue.pair or ("", "")
        return judging_pb2.NextPairResponse(
            first_draft_id=first,
            second_draft_id=second,
            progress=_from_progress(queue),
            incomplete_draft_ids=queue.incomplete_drafts,
        )

    def SkipPair(
        self, request: judging_pb2.SkipPairRequest, context: grpc.ServicerContext
    ) -> judging_pb2.SkipPairResponse:
        del context
        expert_id, may_use = _expert(request.judged_by), current_caller().may_use
        judging.skip_pair(self._begin, request.specialist, request.draft_id, expert_id, may_use)
        return judging_pb2.SkipPairResponse()


def _expert(judged_by: str) -> str:
    """The expert who asks. Only a service may speak for another key."""
    caller = current_caller()
    return identify_expert(judged_by if caller.kind == "service" else caller.key_id)


def _from_progress(queue: ExpertQueue) -> judging_pb2.JudgingProgress:
    return judging_pb2.JudgingProgress(
        judged=queue.judged,
        waiting=queue.waiting,
        incomplete=queue.incomplete,
        round=wire.from_round(queue.round) if queue.round else None,
    )
