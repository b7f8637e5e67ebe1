"""The gRPC methods that describe how a specialist's experts judge together, and what their comments ask for."""

import grpc

from services.registry.adapters.sql import Begin
from services.registry.domain import Specialist
from services.registry.handlers.specialists import unknown_specialist
from services.registry.queries import Queries
from services.registry.rules.comment_groups import MAX_COMMENTS, CommentGroup, group_comments
from services.registry.rules.panel import CriterionAgreement, measure_panel, report_panel
from tailor.api.registry.v1 import panel_pb2, panel_pb2_grpc
from tailor.codec import encode
from tailor.rpc.auth import current_caller
from tailor.rpc.paging import page_size

DEFAULT_GUIDELINES, MAX_GUIDELINES = 20, 100


class PanelServicer(panel_pb2_grpc.PanelServiceServicer):
    """Translates calls."""

    def __init__(self, begin: Begin, queries: Queries) -> None:
        self._begin = begin
        self._queries = queries

    def GetAgreement(
        self, request: panel_pb2.GetAgreementRequest, context: grpc.ServicerContext
    ) -> panel_pb2.GetAgreementResponse:
        del context
        criteria = self._find_visible(request.specialist).judging.effective_criteria
        judgements = [judgement for judgement in self._queries.judgements(request.specialist) if judgement.expert_id]
        return panel_pb2.GetAgreementResponse(
            agreement=map(_from_agreement, measure_panel(judgements, [criterion.name for criterion in criteria])),
            judgements=len(judgements),
            experts=len({judgement.expert_id for judgement in judgements}),
        )

    def GetPanelReport(
        self, request: panel_pb2.GetPanelReportRequest, context: grpc.ServicerContext
    ) -> panel_pb2.GetPanelReportResponse:
        del context
        criteria = self._find_visible(request.specialist).judging.effective_criteria
        questions = {criterion.name: criterion.question for criterion in criteria}
        judgements = [judgement for judgement in self._queries.judgements(request.specialist) if judgement.marks]
        adapters = self._queries.draft_adapters({mark.draft_id for item in judgements for mark in item.marks})
        means = report_panel(judgements, adapters, [*questions])
        return panel_pb2.GetPanelReportResponse(
            means=[encode(panel_pb2.PanelMean, mean, question=questions.get(mean.criterion, "")) for mean in means],
            judgements=len(judgements),
        )

    def ProposeGuidelines(
        self, request: panel_pb2.ProposeGuidelinesRequest, context: grpc.ServicerContext
    ) -> panel_pb2.ProposeGuidelinesResponse:
        del context
        size = page_size(request.page_size, DEFAULT_GUIDELINES, MAX_GUIDELINES)
        known = self._find_visible(request.specialist).evaluation.guidelines
        judgements = self._queries.judgements(request.specialist)
        return panel_pb2.ProposeGuidelinesResponse(
            guidelines=[_from_group(group, known) for group in group_comments(judgements)[:size]],
            comments=min(sum(bool(judgement.comment.strip()) for judgement in judgements), MAX_COMMENTS),
        )

    def _find_visible(self, name: str) -> Specialist:
        with self._begin() as tx:
            specialist = tx.specialists.find(name=name)
        if specialist is None or not current_caller().may_use(name):
            raise unknown_specialist()
        return specialist


def _from_group(group: CommentGroup, guidelines: str) -> panel_pb2.ProposedGuideline:
    adopted = any(example.text.casefold() in guidelines.casefold() for example in group.examples)
    return encode(panel_pb2.ProposedGuideline, group, adopted=adopted)


def _from_agreement(item: CriterionAgreement) -> panel_pb2.CriterionAgreement:
    return encode(panel_pb2.CriterionAgreement, item.agreement, criterion=item.criterion, expert_id=item.expert_id)
