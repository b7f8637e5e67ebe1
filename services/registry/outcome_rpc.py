"""The gRPC methods of outcomes: inference stores what callers report."""

from datetime import UTC, datetime

import grpc

from services.registry.handlers.outcomes import store_outcome
from services.registry.outcome_domain import DraftOutcome
from services.registry.ports import Begin
from tailor.api.registry.v1 import outcomes_pb2, outcomes_pb2_grpc
from tailor.events.envelope import derive_id
from tailor.wire import from_datetime


class OutcomeServicer(outcomes_pb2_grpc.OutcomeServiceServicer):
    """Translates calls."""

    def __init__(self, begin: Begin) -> None:
        self._begin = begin

    def StoreOutcome(
        self, request: outcomes_pb2.StoreOutcomeRequest, context: grpc.ServicerContext
    ) -> outcomes_pb2.StoreOutcomeResponse:
        del context
        key = ("draft", request.draft_id) if request.draft_id else ("request", request.request_id)
        outcome = DraftOutcome(
            outcome_id=derive_id("out", request.caller_id, *key),
            draft_id=request.draft_id,
            specialist=request.specialist,
            minutes=request.minutes,
            satisfaction=request.satisfaction,
            create_time=datetime.now(UTC),
        )
        stored = store_outcome(self._begin, outcome, request.request_id)
        return outcomes_pb2.StoreOutcomeResponse(outcome=_from_outcome(stored))


def _from_outcome(outcome: DraftOutcome) -> outcomes_pb2.DraftOutcome:
    return outcomes_pb2.DraftOutcome(
        outcome_id=outcome.outcome_id,
        draft_id=outcome.draft_id,
        specialist=outcome.specialist,
        generation=outcome.generation,
        adapter_digest=outcome.adapter_digest,
        minutes=outcome.minutes,
        satisfaction=outcome.satisfaction,
        create_time=from_datetime(outcome.create_time),
    )
