"""The gRPC methods of the queue of drafts that experts judge."""

import grpc

from services.registry import wire
from services.registry.adapters.sql import Begin
from services.registry.handlers import queued_pairs
from services.registry.handlers.judgements import identify_expert
from services.registry.rules.expert_queue import MAX_DRAWN_WAITING, ExpertQueue
from tailor.api.registry.v1 import judging_pb2, judging_pb2_grpc
from tailor.codec import encode
from tailor.rpc.auth import current_caller
from tailor.rpc.paging import MAX_TOKEN_DIGITS


class JudgingServicer(judging_pb2_grpc.JudgingServiceServicer):
    """Translates calls."""

    def __init__(self, begin: Begin) -> None:
        self._begin = begin

    def NextPair(
        self, request: judging_pb2.NextPairRequest, context: grpc.ServicerContext
    ) -> judging_pb2.NextPairResponse:
        del context
        expert_id, may_use = _expert(request.judged_by), current_caller().may_use
        queue = queued_pairs.next_pair(self._begin, request.specialist, expert_id, may_use)
        return encode(
            judging_pb2.NextPairResponse,
            queue,
            draft_ids=queue.drafts,
            progress=_from_progress(queue),
            incomplete_draft_ids=queue.incomplete_drafts,
            last_decision=_from_position(queue.last_decision),
            drawn=queue.is_drawn,
            draw_prompt=queue.draws_prompt,
        )

    def SkipPair(
        self, request: judging_pb2.SkipPairRequest, context: grpc.ServicerContext
    ) -> judging_pb2.SkipPairResponse:
        del context
        expert_id, may_use = _expert(request.judged_by), current_caller().may_use
        queued_pairs.skip_pair(self._begin, request.specialist, request.draft_id, expert_id, may_use)
        return judging_pb2.SkipPairResponse()

    def UndoJudgement(
        self, request: judging_pb2.UndoJudgementRequest, context: grpc.ServicerContext
    ) -> judging_pb2.UndoJudgementResponse:
        del context
        expert_id, may_use = _expert(request.judged_by), current_caller().may_use
        decision = _to_position(request.decision)
        judgement_id = queued_pairs.undo_judgement(self._begin, request.specialist, expert_id, decision, may_use)
        return judging_pb2.UndoJudgementResponse(judgement_id=judgement_id)

    def ListOwnJudgements(
        self, request: judging_pb2.ListOwnJudgementsRequest, context: grpc.ServicerContext
    ) -> judging_pb2.ListOwnJudgementsResponse:
        del context
        expert_id, may_use = _expert(request.judged_by), current_caller().may_use
        last = queued_pairs.find_last_decision(self._begin, request.specialist, expert_id, may_use)
        with self._begin() as tx:
            page = tx.expert_decisions.list_own(request, expert_id)
        return judging_pb2.ListOwnJudgementsResponse(
            judgements=map(wire.from_judgement, page.items),
            next_page_token=page.next_token,
            last_decision=_from_position(last),
        )

    def CountDrawnPrompts(
        self, request: judging_pb2.CountDrawnPromptsRequest, context: grpc.ServicerContext
    ) -> judging_pb2.CountDrawnPromptsResponse:
        del context
        waiting = queued_pairs.count_drawn_prompts(self._begin, request.specialist, current_caller().may_use)
        return judging_pb2.CountDrawnPromptsResponse(waiting=waiting, max_waiting=MAX_DRAWN_WAITING)


def _from_position(decision: int | None) -> str:
    return "" if decision is None else str(decision)


def _to_position(decision: str) -> int | None:
    """The position that a decision names; None if it names none. Longer numbers than any position are not read."""
    return int(decision) if decision.isdecimal() and len(decision) <= MAX_TOKEN_DIGITS else None


def _expert(judged_by: str) -> str:
    """The expert who asks. Only a service may speak for another key."""
    caller = current_caller()
    return identify_expert(judged_by if caller.kind == "service" else caller.key_id)


def _from_progress(queue: ExpertQueue) -> judging_pb2.JudgingProgress:
    progress = wire.from_round(queue.round) if queue.round else None
    return encode(judging_pb2.JudgingProgress, queue, round=progress)
