"""The gRPC methods of evaluation: each translates its request, calls a handler, and translates the answer."""

import contextlib

import grpc

from services.evaluation import handlers, wire
from services.evaluation.adapters.sql import SqlArtifacts, SqlEvaluations
from services.evaluation.comparison import ReportedModel, compare
from services.evaluation.domain import CANDIDATE, Evaluation, EvaluationState
from services.evaluation.report import ReportStore
from tailor.api.evaluation.v1 import evaluation_pb2, evaluation_pb2_grpc
from tailor.codec import encode
from tailor.errors import InvalidArgument, NotFound, Reason
from tailor.events.envelope import derive_id, new_id
from tailor.rpc.auth import current_caller
from tailor.rpc.paging import offset, page_size

MAX_REQUEST_ID = 128
# Rows of a comparison per page.
DEFAULT_ROWS, MAX_ROWS = 10, 50


class EvaluationServicer(evaluation_pb2_grpc.EvaluationServiceServicer):
    """Translates calls for the handlers. To callers of other specialists, adapters and evaluations do not exist."""

    def __init__(self, artifacts: SqlArtifacts, evaluations: SqlEvaluations, reports: ReportStore) -> None:
        self._artifacts = artifacts
        self._evaluations = evaluations
        self._reports = reports

    def Evaluate(
        self, request: evaluation_pb2.EvaluateRequest, context: grpc.ServicerContext
    ) -> evaluation_pb2.EvaluateResponse:
        """Queue another evaluation of an adapter."""
        if len(request.request_id) > MAX_REQUEST_ID:
            raise InvalidArgument(
                Reason.INVALID_REQUEST_ID, f"`request_id` must have at most {MAX_REQUEST_ID} characters."
            )
        adapter = handlers.find_adapter(self._artifacts, request.adapter_digest)
        if not current_caller().may_use(adapter.specialist):
            raise handlers.unknown_adapter()
        caller = current_caller()
        # By caller, so that nobody takes the id of another's request before it comes.
        parts = ("request", caller.name, caller.key_id, request.request_id)
        evaluation_id = derive_id("evl", *parts) if request.request_id else new_id("evl")
        evaluation = handlers.evaluate_again(self._artifacts, self._evaluations, request.adapter_digest, evaluation_id)
        return evaluation_pb2.EvaluateResponse(evaluation_id=evaluation.evaluation_id)

    def GetEvaluation(
        self, request: evaluation_pb2.GetEvaluationRequest, context: grpc.ServicerContext
    ) -> evaluation_pb2.GetEvaluationResponse:
        """Return an evaluation, finished or not."""
        evaluation = handlers.find_evaluation(self._evaluations, request.evaluation_id, request.adapter_digest)
        if not current_caller().may_use(evaluation.adapter.specialist):
            raise handlers.unknown_evaluation()
        response = encode(evaluation_pb2.GetEvaluationResponse, evaluation)
        if evaluation.state is EvaluationState.SUCCEEDED:
            self._add_report(response, evaluation)
        return response

    def CompareEvaluations(
        self, request: evaluation_pb2.CompareEvaluationsRequest, context: grpc.ServicerContext
    ) -> evaluation_pb2.CompareEvaluationsResponse:
        """Compare two models row by row."""
        size, start = page_size(request.page_size, DEFAULT_ROWS, MAX_ROWS), offset(request.page_token)
        first, second = self._read_model(request.first), self._read_model(request.second)
        comparison = compare(first, second, request.metric, request.task, request.language)
        return wire.from_comparison(comparison, start, size)

    def _read_model(self, side: evaluation_pb2.ComparedModel) -> ReportedModel:
        """One side of a comparison. Raises NotFound for what the caller may not see."""
        adapter = handlers.find_adapter(self._artifacts, side.adapter_digest)
        if not current_caller().may_use(adapter.specialist):
            raise handlers.unknown_adapter()
        report = handlers.find_report(self._evaluations, side.adapter_digest)
        return self._reports.read_model(report, side.model or CANDIDATE)

    def _add_report(self, response: evaluation_pb2.GetEvaluationResponse, evaluation: Evaluation) -> None:
        result = self._evaluations.result(evaluation.evaluation_id)
        if result is not None:
            response.result.CopyFrom(wire.from_result(result))
            # An erasure deletes the report; the scores stay.
            with contextlib.suppress(NotFound):
                response.report_markdown = self._reports.markdown(result.report)
                response.plot_png = self._reports.plot(result.report)
