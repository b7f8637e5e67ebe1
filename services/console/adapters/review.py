"""Anonymization's review over gRPC."""

import grpc

from services.console.domain import Page, PassageDecision
from services.console.ports import PassageReview
from tailor.api.anonymization.v1 import replaced_pb2, replaced_pb2_grpc, review_pb2, review_pb2_grpc
from tailor.rpc.channel import wire_errors

READ_SECONDS = 4
REPORT_SECONDS = 15
DRAW_SECONDS = 120  # reads the size of every document
APPLY_SECONDS = 60  # builds what applies a new policy
PAGE_SIZE = 50


class ReviewClient(PassageReview):
    """The review. Every call has a deadline."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = review_pb2_grpc.ReviewServiceStub(channel)
        self._replaced = replaced_pb2_grpc.ReplacedServiceStub(channel)

    def draw_sample(self, size: int, reviewer: str, *, replace: bool) -> review_pb2.DrawSampleResponse:
        request = review_pb2.DrawSampleRequest(size=size, replace=replace, reviewer=reviewer)
        with wire_errors("anonymization"):
            return self._stub.DrawSample(request, timeout=DRAW_SECONDS)

    def next_passage(self, kind: str, reviewer: str) -> review_pb2.NextPassageResponse:
        number = review_pb2.PassageKind.Value(f"PASSAGE_KIND_{kind.upper() or 'UNSPECIFIED'}")
        request = review_pb2.NextPassageRequest(kind=number, reviewer=reviewer)
        with wire_errors("anonymization"):
            return self._stub.NextPassage(request, timeout=READ_SECONDS)

    def decide(self, decision: PassageDecision, reviewer: str) -> None:
        marks = [review_pb2.PassageMark(start=start, end=end, entity_type=kind) for start, end, kind in decision.marks]
        request = review_pb2.DecidePassageRequest(
            passage_id=decision.passage_id, marks=marks, skip=decision.skip, reviewer=reviewer
        )
        with wire_errors("anonymization"):
            self._stub.DecidePassage(request, timeout=READ_SECONDS)

    def undo(self, reviewer: str) -> str:
        with wire_errors("anonymization"):
            request = review_pb2.UndoDecisionRequest(reviewer=reviewer)
            return self._stub.UndoDecision(request, timeout=READ_SECONDS).passage_id

    def get_passage(self, document_id: str, number: int) -> review_pb2.ReviewPassage:
        with wire_errors("anonymization"):
            request = review_pb2.GetPassageRequest(document_id=document_id, number=number)
            return self._stub.GetPassage(request, timeout=READ_SECONDS).passage

    def get_report(self) -> review_pb2.GetResidualReportResponse:
        with wire_errors("anonymization"):
            return self._stub.GetResidualReport(review_pb2.GetResidualReportRequest(), timeout=REPORT_SECONDS)

    def list_rare_combinations(self, token: str) -> Page[review_pb2.RareCombination]:
        request = review_pb2.ListRareCombinationsRequest(page_size=PAGE_SIZE, page_token=token)
        with wire_errors("anonymization"):
            answer = self._stub.ListRareCombinations(request, timeout=REPORT_SECONDS)
        return Page(tuple(answer.combinations), answer.next_page_token)

    def sign_statement(self, reviewer: str) -> review_pb2.SignedStatement:
        request = review_pb2.SignStatementRequest(reviewer=reviewer)
        with wire_errors("anonymization"):
            return self._stub.SignStatement(request, timeout=REPORT_SECONDS).statement

    def list_replaced(self, token: str) -> Page[replaced_pb2.ReplacedString]:
        request = replaced_pb2.ListReplacedRequest(page_size=PAGE_SIZE, page_token=token)
        with wire_errors("anonymization"):
            answer = self._replaced.ListReplaced(request, timeout=REPORT_SECONDS)
        return Page(tuple(answer.strings), answer.next_page_token)

    def get_replaced(self, entity_type: str, surrogate: str, reviewer: str) -> replaced_pb2.GetReplacedResponse:
        request = replaced_pb2.GetReplacedRequest(entity_type=entity_type, surrogate=surrogate, reviewer=reviewer)
        with wire_errors("anonymization"):
            return self._replaced.GetReplaced(request, timeout=REPORT_SECONDS)

    def decide_replaced(self, entity_type: str, surrogate: str, reviewer: str, *, allow: bool) -> str:
        decision = replaced_pb2.REPLACED_DECISION_ALLOWED if allow else replaced_pb2.REPLACED_DECISION_KEPT
        request = replaced_pb2.DecideReplacedRequest(
            entity_type=entity_type, surrogate=surrogate, decision=decision, reviewer=reviewer
        )
        with wire_errors("anonymization"):
            return self._replaced.DecideReplaced(request, timeout=APPLY_SECONDS).policy.barrier_digest
