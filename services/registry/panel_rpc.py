"""The gRPC method that describes how a specialist's experts judge together."""

import grpc

from services.registry.handlers.specialists import unknown_specialist
from services.registry.ports import Begin
from services.registry.queries import Queries
from services.registry.rules.panel import CriterionAgreement, measure_panel
from tailor.api.registry.v1 import panel_pb2, panel_pb2_grpc
from tailor.rpc.auth import current_caller


class PanelServicer(panel_pb2_grpc.PanelServiceServicer):
    """Translates calls."""

    def __init__(self, begin: Begin, queries: Queries) -> None:
        self._begin = begin
        self._queries = queries

    def GetAgreement(
        self, request: panel_pb2.GetAgreementRequest, context: grpc.ServicerContext
    ) -> panel_pb2.GetAgreementResponse:
        del context
        with self._begin() as tx:
            specialist = tx.specialists.find(request.specialist)
        if specialist is None or not current_caller().may_use(request.specialist):
            raise unknown_specialist()
        judgements = [judgement for judgement in self._queries.judgements(request.specialist) if judgement.expert_id]
        return panel_pb2.GetAgreementResponse(
            agreement=map(_from_agreement, measure_panel(judgements)),
            judgements=len(judgements),
            experts=len({judgement.expert_id for judgement in judgements}),
        )


def _from_agreement(item: CriterionAgreement) -> panel_pb2.CriterionAgreement:
    measured = item.agreement
    return panel_pb2.CriterionAgreement(
        criterion=item.criterion,
        expert_id=item.expert_id,
        units=measured.units,
        alpha=measured.alpha,
        low=measured.low,
        high=measured.high,
    )
