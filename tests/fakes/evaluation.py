"""The evaluation service in this process, with answers that tests set."""

from typing import Any

from tailor.api.evaluation.v1 import evaluation_pb2, evaluation_pb2_grpc


class FakeEvaluation(evaluation_pb2_grpc.EvaluationServiceServicer):
    """Starts an evaluation, which never ends, and gives one comparison."""

    def __init__(self) -> None:
        self.comparison = evaluation_pb2.CompareEvaluationsResponse()
        self.compared: list[evaluation_pb2.CompareEvaluationsRequest] = []
        self.report = ""

    def CompareEvaluations(self, request: Any, context: Any) -> Any:
        self.compared.append(request)
        return self.comparison

    def Evaluate(self, request: Any, context: Any) -> Any:
        return evaluation_pb2.EvaluateResponse(evaluation_id=f"evl_{request.adapter_digest[:4]}")

    def GetEvaluation(self, request: Any, context: Any) -> Any:
        state = evaluation_pb2.EVALUATION_STATE_RUNNING
        return evaluation_pb2.GetEvaluationResponse(state=state, rows_done=3, rows_total=8, report_markdown=self.report)
