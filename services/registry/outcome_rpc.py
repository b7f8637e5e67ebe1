"""The gRPC methods of outcomes: inference stores what callers report, people read the figures."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import grpc

from services.registry.adapters.sql import Begin
from services.registry.handlers.outcomes import store_outcome
from services.registry.handlers.specialists import get_specialist, unknown_specialist
from services.registry.outcome_domain import BASELINE, DraftOutcome
from services.registry.queries import Queries
from services.registry.rules.ledger import parse_month
from services.registry.rules.outcomes import (
    OutcomeFigures,
    summarize_by_generation,
    summarize_by_week,
    week_of,
)
from tailor.api.registry.v1 import outcomes_pb2, outcomes_pb2_grpc
from tailor.codec import decode, encode
from tailor.errors import InvalidArgument, Reason
from tailor.events.envelope import derive_id
from tailor.rpc.auth import current_caller
from tailor.values import Selection
from tailor.wire import from_datetime

DEFAULT_WEEKS, MAX_WEEKS = 12, 104


class OutcomeServicer(outcomes_pb2_grpc.OutcomeServiceServicer):
    """Translates calls."""

    def __init__(self, begin: Begin, queries: Queries) -> None:
        self._begin = begin
        self._queries = queries

    def StoreOutcome(
        self, request: outcomes_pb2.StoreOutcomeRequest, context: grpc.ServicerContext
    ) -> outcomes_pb2.StoreOutcomeResponse:
        del context
        key = ("draft", request.draft_id) if request.draft_id else ("request", request.request_id)
        outcome_id = derive_id("out", request.caller_id, *key)
        outcome = decode(DraftOutcome, request, outcome_id=outcome_id, create_time=datetime.now(UTC))
        stored = store_outcome(self._begin, outcome, request.request_id)
        return outcomes_pb2.StoreOutcomeResponse(outcome=encode(outcomes_pb2.DraftOutcome, stored))

    def GetOutcomes(
        self, request: outcomes_pb2.GetOutcomesRequest, context: grpc.ServicerContext
    ) -> outcomes_pb2.GetOutcomesResponse:
        del context
        if not current_caller().may_use(request.specialist):
            raise unknown_specialist()
        specialist = get_specialist(self._begin, request.specialist)
        since = week_of(datetime.now(UTC)) - timedelta(weeks=_check_weeks(request.weeks) - 1)
        outcomes, finals = self._queries.outcomes(specialist.name)
        if request.month:
            month = parse_month(request.month, datetime.now(UTC))
            outcomes = [item for item in outcomes if item.generation == BASELINE or month.has(item.create_time)]
            finals = [item for item in finals if month.has(item.create_time)]
        recent = [item for item in summarize_by_week(outcomes, finals) if item.week is not None and item.week >= since]
        documents = self._queries.documents_by_week(specialist.selection, since)
        sources = specialist.knowledge_sources
        articles = self._queries.documents_by_week(Selection(sources=sources), since) if sources else {}
        from_figures = partial(encode, outcomes_pb2.OutcomeFigures)
        return outcomes_pb2.GetOutcomesResponse(
            generations=map(from_figures, summarize_by_generation(outcomes, finals)),
            weeks=map(from_figures, recent),
            documents=_list_weeks(documents, articles, recent),
        )


def _check_weeks(weeks: int) -> int:
    if not 0 <= weeks <= MAX_WEEKS:
        raise InvalidArgument(
            Reason.INVALID_REQUEST,
            "The number of weeks is invalid.",
            field_violations={"weeks": f"must be 1 to {MAX_WEEKS}, or 0 for {DEFAULT_WEEKS}"},
        )
    return weeks or DEFAULT_WEEKS


def _list_weeks(
    documents: Mapping[datetime, int], articles: Mapping[datetime, int], recent: Sequence[OutcomeFigures]
) -> Iterator[outcomes_pb2.WeekOfDocuments]:
    deliverables: Counter[datetime] = Counter()
    for figures in recent:
        if figures.week is not None and figures.deliverables:
            deliverables[figures.week] += figures.deliverables
    for week in sorted({*documents, *articles, *deliverables}, reverse=True):
        yield outcomes_pb2.WeekOfDocuments(
            week=from_datetime(week),
            documents=documents.get(week, 0),
            deliverables=deliverables[week],
            knowledge_articles=articles.get(week, 0),
        )
