"""The gRPC service of the review: translates, calls a handler, answers."""

from collections.abc import Iterable
from datetime import UTC, datetime

import grpc

from services.anonymization.review import handlers
from services.anonymization.review.domain import DEFAULT_SAMPLE, MIN_PER_STRATUM
from services.anonymization.review.handlers import Review
from services.anonymization.review.ports import Sign, Verify
from services.anonymization.review.statement import statement_body
from services.anonymization.review_wire import (
    from_combination,
    from_counts,
    from_report,
    from_view,
    to_kind,
    to_mark,
)
from tailor.api.anonymization.v1 import review_pb2, review_pb2_grpc
from tailor.errors import InvalidArgument, Reason
from tailor.rpc.auth import current_caller

MAX_SOURCES = 1_000
MAX_STATEMENT = 1_000_000


class ReviewServicer(review_pb2_grpc.ReviewServiceServicer):
    """Translates calls to handlers."""

    def __init__(self, review: Review, policy_digest: str, sign: Sign, verify: Verify) -> None:
        self._review = review
        self._policy_digest = policy_digest
        self._sign = sign
        self._verify = verify

    def DrawSample(
        self, request: review_pb2.DrawSampleRequest, context: grpc.ServicerContext
    ) -> review_pb2.DrawSampleResponse:
        del context
        sample_id, drawn = handlers.start_sample(
            self._review,
            reviewer_id(request.reviewer),
            size=request.size or DEFAULT_SAMPLE,
            min_per_stratum=request.min_per_stratum if request.HasField("min_per_stratum") else MIN_PER_STRATUM,
            seed=request.seed,
            replace=request.replace,
        )
        return review_pb2.DrawSampleResponse(
            sample_id=sample_id,
            drawn=len(drawn.passages),
            passages=sum(stratum.passages for stratum in drawn.strata),
            documents=drawn.documents,
        )

    def NextPassage(
        self, request: review_pb2.NextPassageRequest, context: grpc.ServicerContext
    ) -> review_pb2.NextPassageResponse:
        del context
        view = handlers.next_passage(self._review, reviewer_id(request.reviewer), to_kind(request.kind))
        return review_pb2.NextPassageResponse(
            passage=None if view is None else from_view(view), waiting=from_counts(self._review.queue.count_waiting())
        )

    def DecidePassage(
        self, request: review_pb2.DecidePassageRequest, context: grpc.ServicerContext
    ) -> review_pb2.DecidePassageResponse:
        del context
        marks, reviewer = [to_mark(mark) for mark in request.marks], reviewer_id(request.reviewer)
        handlers.decide_passage(self._review, reviewer, request.passage_id, marks, skip=request.skip)
        return review_pb2.DecidePassageResponse()

    def UndoDecision(
        self, request: review_pb2.UndoDecisionRequest, context: grpc.ServicerContext
    ) -> review_pb2.UndoDecisionResponse:
        del context
        passage_id = handlers.undo_decision(self._review, reviewer_id(request.reviewer))
        return review_pb2.UndoDecisionResponse(passage_id=passage_id)

    def DropTerm(
        self, request: review_pb2.DropTermRequest, context: grpc.ServicerContext
    ) -> review_pb2.DropTermResponse:
        del context
        handlers.drop_term(self._review, reviewer_id(""), request.term)
        return review_pb2.DropTermResponse()

    def GetResidualReport(
        self, request: review_pb2.GetResidualReportRequest, context: grpc.ServicerContext
    ) -> review_pb2.GetResidualReportResponse:
        del context
        return from_report(handlers.get_report(self._review, _sources(request.sources)))

    def CheckResidual(
        self, request: review_pb2.CheckResidualRequest, context: grpc.ServicerContext
    ) -> review_pb2.CheckResidualResponse:
        del context
        handlers.check_residual(self._review, _sources(request.sources))
        return review_pb2.CheckResidualResponse()

    def ListRareCombinations(
        self, request: review_pb2.ListRareCombinationsRequest, context: grpc.ServicerContext
    ) -> review_pb2.ListRareCombinationsResponse:
        del context
        page = self._review.documents.list_rare(request)
        combinations = map(from_combination, page.items)
        return review_pb2.ListRareCombinationsResponse(combinations=combinations, next_page_token=page.next_token)

    def GetPassage(
        self, request: review_pb2.GetPassageRequest, context: grpc.ServicerContext
    ) -> review_pb2.GetPassageResponse:
        del context
        view = handlers.get_passage(self._review, request.document_id, request.number)
        return review_pb2.GetPassageResponse(passage=from_view(view))

    def SignStatement(
        self, request: review_pb2.SignStatementRequest, context: grpc.ServicerContext
    ) -> review_pb2.SignStatementResponse:
        del context
        sources = _sources(request.sources)
        report = handlers.report_for_statement(self._review, reviewer_id(request.reviewer), sources)
        body = statement_body(report, sources, self._policy_digest, datetime.now(UTC))
        signature, public_key = self._sign(body.encode())
        statement = review_pb2.SignedStatement(body=body, signature=signature, public_key=public_key)
        return review_pb2.SignStatementResponse(statement=statement)

    def VerifyStatement(
        self, request: review_pb2.VerifyStatementRequest, context: grpc.ServicerContext
    ) -> review_pb2.VerifyStatementResponse:
        del context
        if len(request.statement.body) > MAX_STATEMENT:
            raise InvalidArgument(Reason.TOO_LONG, f"A statement has at most {MAX_STATEMENT:,} characters.")
        valid = self._verify(request.statement.body.encode(), request.statement.signature)
        return review_pb2.VerifyStatementResponse(valid=valid)


def reviewer_id(named: str) -> str:
    """The reviewer's key. Only the console may name another caller than itself; its operator by password has no key."""
    caller = current_caller()
    if caller.kind == "service":
        return named or caller.name
    return caller.key_id or caller.name


def _sources(sources: Iterable[str]) -> tuple[str, ...]:
    names = tuple(sources)
    if len(names) > MAX_SOURCES:
        raise InvalidArgument(Reason.TOO_LONG, f"Name at most {MAX_SOURCES:,} sources.")
    return names
