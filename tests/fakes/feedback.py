"""The registry's feedback, outcomes and panel in this process."""

from typing import Any

from tailor.api.registry.v1 import (
    feedback_pb2,
    feedback_pb2_grpc,
    outcomes_pb2,
    outcomes_pb2_grpc,
    panel_pb2,
    panel_pb2_grpc,
)


class FakeFeedback(feedback_pb2_grpc.FeedbackServiceServicer):
    """Answers with the page that a test sets, and records the requests."""

    def __init__(self) -> None:
        self.page = feedback_pb2.ListFeedbackResponse()
        self.asked: list[feedback_pb2.ListFeedbackRequest] = []

    def ListFeedback(self, request: Any, context: Any) -> Any:
        self.asked.append(request)
        return self.page


class FakeOutcomes(outcomes_pb2_grpc.OutcomeServiceServicer):
    """Answers with the figures that a test sets, and records the requests."""

    def __init__(self) -> None:
        self.answer = outcomes_pb2.GetOutcomesResponse()
        self.asked: list[outcomes_pb2.GetOutcomesRequest] = []

    def GetOutcomes(self, request: Any, context: Any) -> Any:
        self.asked.append(request)
        return self.answer


class FakePanel(panel_pb2_grpc.PanelServiceServicer):
    """Answers with the agreement, the report and the guidelines that a test sets."""

    def __init__(self) -> None:
        self.answer = panel_pb2.GetAgreementResponse()
        self.report = panel_pb2.GetPanelReportResponse()
        self.guidelines = panel_pb2.ProposeGuidelinesResponse()

    def GetAgreement(self, request: Any, context: Any) -> Any:
        return self.answer

    def GetPanelReport(self, request: Any, context: Any) -> Any:
        return self.report

    def ProposeGuidelines(self, request: Any, context: Any) -> Any:
        return self.guidelines
