"""The gRPC face of evaluation."""

import contextlib

import grpc

from services.evaluation import handlers, wire
from services.evaluation.domain import Evaluation, State
from services.evaluation.handlers import Evaluating
from tailor.api.evaluation.v1 import evaluation_pb2, evaluation_pb2_grpc
from tailor.errors import InvalidArgument, NotFound, Reason
from tailor.events.envelope import derive_id, new_id
from tailor.rpc.auth import current_caller

MAX_REQUEST_ID = 128


class EvaluationServicer(evaluation_pb2_grpc.EvaluationServiceServicer):
    """Translates calls for the handlers."""

    def __init__(self, app: Evaluating) -> None:
        self._app = app

    def Evaluate(
        self, request: evaluation_pb2.EvaluateRequest, context: grpc.ServicerContext
    ) -> evaluation_pb2.EvaluateResponse:
        """Measure an adapter again, in the background."""
        if len(request.request_id) > MAX_REQUEST_ID:
            raise InvalidArgument(Reason.INVALID_REQUEST_ID, f"A request id has at most {MAX_REQUEST_ID} characters.")
        if not current_caller().may_use(handlers.find_adapter(self._app, request.adapter_digest).specialist):
            raise NotFound(Reason.UNKNOWN_ADAPTER, "No adapter of this digest was announced.")
        evaluation_id = derive_id("evl", "request", request.request_id) if request.request_id else new_id("evl")
        evaluation = handlers.evaluate(self._app, request.adapter_digest, evaluation_id)
        return evaluation_pb2.EvaluateResponse(evaluation_id=evaluation.evaluation_id)

    def GetEvaluation(
        self, request: evaluation_pb2.GetEvaluationRequest, context: grpc.ServicerContext
    ) -> evaluation_pb2.GetEvaluationResponse:
        """An evaluation, finished or not."""
        evaluation = handlers.get_evaluation(self._app, request.evaluation_id, request.adapter_digest)
        if not current_caller().may_use(evaluation.adapter.specialist):
            raise NotFound(Reason.UNKNOWN_EVALUATION, "There is no such evaluation.")
        response = evaluation_pb2.GetEvaluationResponse(
            evaluation_id=evaluation.evaluation_id,
            state=wire.STATES[evaluation.state],
            rows_done=evaluation.rows_done,
            rows_total=evaluation.rows_total,
            reason=evaluation.reason,
        )
        if evaluation.state is State.SUCCEEDED:
            self._add_report(response, evaluation)
        return response

    def _add_report(self, response: evaluation_pb2.GetEvaluationResponse, evaluation: Evaluation) -> None:
        measured = self._app.repository.measured(evaluation.evaluation_id)
        if measured is not None:
            response.result.CopyFrom(wire.from_measured(measured))
            # The report of erased rows is gone; the scores stay.
            with contextlib.suppress(NotFound):
                response.report_markdown = self._app.reports.markdown(measured.report)
                response.plot_png = self._app.reports.plot(measured.report)
