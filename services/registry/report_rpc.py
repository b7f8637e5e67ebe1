"""The gRPC methods of a specialist's month: what it used, and what served."""

from datetime import UTC, datetime

import grpc

from services.registry.adapters.sql import Begin
from services.registry.domain import Specialist
from services.registry.handlers.specialists import get_specialist, unknown_specialist
from services.registry.queries import Queries
from services.registry.rules.ledger import (
    LedgerLine,
    Month,
    UnitPrices,
    bill_judge,
    bill_judgements,
    bill_runs,
    bill_serving,
    bill_storage,
    bill_teacher,
    parse_month,
    sum_amounts,
)
from tailor.api.registry.v1 import reports_pb2, reports_pb2_grpc
from tailor.codec import encode
from tailor.rpc.auth import current_caller
from tailor.wire import from_datetime


class ReportServicer(reports_pb2_grpc.ReportServiceServicer):
    """Translates calls."""

    def __init__(self, begin: Begin, queries: Queries, prices: UnitPrices) -> None:
        self._begin = begin
        self._queries = queries
        self._prices = prices

    def GetLedger(
        self, request: reports_pb2.GetLedgerRequest, context: grpc.ServicerContext
    ) -> reports_pb2.GetLedgerResponse:
        del context
        specialist = self._find(request.specialist)
        now = datetime.now(UTC)
        month = parse_month(request.month, now)
        lines = self._bill(specialist.name, month, now)
        return encode(
            reports_pb2.GetLedgerResponse,
            specialist,
            month=f"{month.start:%Y-%m}",
            lines=[encode(reports_pb2.LedgerLine, line) for line in lines],
            start_time=from_datetime(month.start),
            budget_used=sum_amounts(lines, self._prices.currency),
        )

    def _bill(self, name: str, month: Month, now: datetime) -> list[LedgerLine]:
        queries, prices = self._queries, self._prices
        return [
            *bill_runs(queries.run_uses(name), month),
            *bill_teacher(queries.teacher_uses(name), month, prices),
            *bill_judge(queries.judge_uses(name), month, prices),
            *bill_serving(queries.serving_uses(name, month), prices),
            *bill_storage(queries.storage_uses(name), month, now, prices),
            *bill_judgements(queries.judgement_uses(name), month, prices),
        ]

    def ListGenerations(
        self, request: reports_pb2.ListGenerationsRequest, context: grpc.ServicerContext
    ) -> reports_pb2.ListGenerationsResponse:
        del context
        self._find(request.specialist)
        page = self._queries.list_generations(request)
        return reports_pb2.ListGenerationsResponse(generations=page.items, next_page_token=page.next_token)

    def _find(self, name: str) -> Specialist:
        if not current_caller().may_use(name):
            raise unknown_specialist()
        return get_specialist(self._begin, name)
