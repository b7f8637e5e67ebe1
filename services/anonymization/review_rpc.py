"""The gRPC services of the review: translate, call a handler, answer."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import grpc

from services.anonymization.policy.installed import CurrentPolicy
from services.anonymization.review import handlers, replaced
from services.anonymization.review.domain import DEFAULT_SAMPLE, MIN_PER_STRATUM, PassageKind, PassageMark, PassageView
from services.anonymization.review.estimates import ResidualEstimate
from services.anonymization.review.handlers import ResidualReport, Review
from services.anonymization.review.replaced_domain import ReplacedDecision
from tailor.api.anonymization.v1 import policy_pb2, replaced_pb2, replaced_pb2_grpc, review_pb2, review_pb2_grpc
from tailor.codec import decode, encode
from tailor.errors import InvalidArgument, Reason
from tailor.rpc.auth import current_caller
from tailor.rpc.identity import Identity
from tailor.wire import enum_name

MAX_SOURCES = 1_000
MAX_STATEMENT = 1_000_000


class ReviewServicer(review_pb2_grpc.ReviewServiceServicer):
    """Translates calls to handlers. The identity signs statements."""

    def __init__(self, review: Review, identity: Identity) -> None:
        self._review = review
        self._identity = identity

    def DrawSample(
        self, request: review_pb2.DrawSampleRequest, context: grpc.ServicerContext
    ) -> review_pb2.DrawSampleResponse:
        del context
        sample_id, drawn = handlers.start_sample(
            self._review,
            _reviewer_id(request.reviewer),
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
        view = handlers.next_passage(self._review, _reviewer_id(request.reviewer), _to_kind(request.kind))
        waiting = encode(review_pb2.QueueCounts, self._review.queue.count_waiting())
        return review_pb2.NextPassageResponse(passage=None if view is None else _from_view(view), waiting=waiting)

    def DecidePassage(
        self, request: review_pb2.DecidePassageRequest, context: grpc.ServicerContext
    ) -> review_pb2.DecidePassageResponse:
        del context
        marks, reviewer = [decode(PassageMark, mark) for mark in request.marks], _reviewer_id(request.reviewer)
        handlers.decide_passage(self._review, reviewer, request.passage_id, marks, skip=request.skip)
        return review_pb2.DecidePassageResponse()

    def UndoDecision(
        self, request: review_pb2.UndoDecisionRequest, context: grpc.ServicerContext
    ) -> review_pb2.UndoDecisionResponse:
        del context
        passage_id = handlers.undo_decision(self._review, _reviewer_id(request.reviewer))
        return review_pb2.UndoDecisionResponse(passage_id=passage_id)

    def DropTerm(
        self, request: review_pb2.DropTermRequest, context: grpc.ServicerContext
    ) -> review_pb2.DropTermResponse:
        del context
        handlers.drop_term(self._review, _reviewer_id(""), request.term)
        return review_pb2.DropTermResponse()

    def GetResidualReport(
        self, request: review_pb2.GetResidualReportRequest, context: grpc.ServicerContext
    ) -> review_pb2.GetResidualReportResponse:
        del context
        return _from_report(handlers.get_report(self._review, _sources(request.sources)))

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
        combinations = [encode(review_pb2.RareCombination, item) for item in page.items]
        return review_pb2.ListRareCombinationsResponse(combinations=combinations, next_page_token=page.next_token)

    def GetPassage(
        self, request: review_pb2.GetPassageRequest, context: grpc.ServicerContext
    ) -> review_pb2.GetPassageResponse:
        del context
        view = handlers.get_passage(self._review, request.document_id, request.number)
        return review_pb2.GetPassageResponse(passage=_from_view(view))

    def SignStatement(
        self, request: review_pb2.SignStatementRequest, context: grpc.ServicerContext
    ) -> review_pb2.SignStatementResponse:
        del context
        sources = _sources(request.sources)
        report = handlers.report_for_statement(self._review, _reviewer_id(request.reviewer), sources)
        body = handlers.statement_body(report, sources, self._review.policy().digest, datetime.now(UTC))
        statement = review_pb2.SignedStatement(
            body=body, signature=self._identity.sign(body.encode()), public_key=self._identity.public_key
        )
        return review_pb2.SignStatementResponse(statement=statement)

    def VerifyStatement(
        self, request: review_pb2.VerifyStatementRequest, context: grpc.ServicerContext
    ) -> review_pb2.VerifyStatementResponse:
        del context
        if len(request.statement.body) > MAX_STATEMENT:
            raise InvalidArgument(Reason.TOO_LONG, f"A statement has at most {MAX_STATEMENT:,} characters.")
        valid = self._identity.verify(request.statement.body.encode(), request.statement.signature)
        return review_pb2.VerifyStatementResponse(valid=valid)


class ReplacedServicer(replaced_pb2_grpc.ReplacedServiceServicer):
    """Translates calls about replaced strings. `current` is the policy in force."""

    def __init__(self, review: Review, current: CurrentPolicy) -> None:
        self._review = review
        self._current = current

    def ListReplaced(
        self, request: replaced_pb2.ListReplacedRequest, context: grpc.ServicerContext
    ) -> replaced_pb2.ListReplacedResponse:
        del context
        counted = self._review.strings.count_documents()
        page = self._review.strings.list_page(request, counted.min_documents)
        return replaced_pb2.ListReplacedResponse(
            strings=[encode(replaced_pb2.ReplacedString, item) for item in page.items],
            next_page_token=page.next_token,
            documents=counted.documents,
            words=counted.words,
            min_documents=counted.min_documents,
        )

    def GetReplaced(
        self, request: replaced_pb2.GetReplacedRequest, context: grpc.ServicerContext
    ) -> replaced_pb2.GetReplacedResponse:
        del context
        reviewer = _reviewer_id(request.reviewer)
        revealed = replaced.get_replaced(
            self._review, reviewer, request.entity_type, request.surrogate, with_places=not request.without_places
        )
        return encode(replaced_pb2.GetReplacedResponse, revealed)

    def DecideReplaced(
        self, request: replaced_pb2.DecideReplacedRequest, context: grpc.ServicerContext
    ) -> replaced_pb2.DecideReplacedResponse:
        del context
        reviewer, decision = _reviewer_id(request.reviewer), _to_decision(request.decision)
        replaced.decide_replaced(self._review, reviewer, request.entity_type, request.surrogate, decision)
        installed = self._current.look()
        outdated = self._review.ledger.count_outdated(installed.policy_digest, installed.detectors_digest)
        policy = encode(policy_pb2.InstalledPolicy, installed)
        return replaced_pb2.DecideReplacedResponse(policy=policy, outdated_documents=outdated)

    def MeasureOverRedaction(
        self, request_iterator: Iterator[replaced_pb2.MeasureOverRedactionRequest], context: grpc.ServicerContext
    ) -> replaced_pb2.MeasureOverRedactionResponse:
        del context
        batches = (message.document_ids for message in request_iterator)
        return encode(replaced_pb2.MeasureOverRedactionResponse, replaced.measure_over_redaction(self._review, batches))


def _to_decision(number: int) -> ReplacedDecision:
    name = enum_name(replaced_pb2.ReplacedDecision, number, "REPLACED_DECISION_")
    if name not in ReplacedDecision.__members__:
        raise InvalidArgument(Reason.INVALID_ARGUMENT, "`decision` must be ALLOWED or KEPT.")
    return ReplacedDecision[name]


def _reviewer_id(named: str) -> str:
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


def _to_kind(number: int) -> PassageKind | None:
    """None for every kind."""
    return PassageKind.__members__.get(enum_name(review_pb2.PassageKind, number, "PASSAGE_KIND_"))


def _from_view(view: PassageView) -> review_pb2.ReviewPassage:
    in_queue = {} if view.queued.passage_id else {"kind": review_pb2.PASSAGE_KIND_UNSPECIFIED}
    stretches = [encode(review_pb2.PassageStretch, item) for item in sorted(view.stretches, key=lambda it: it.start)]
    message = encode(review_pb2.ReviewPassage, view.queued, stretches=stretches, **in_queue)
    message.MergeFrom(encode(review_pb2.ReviewPassage, view, stretches=()))
    return message


def _from_report(report: ResidualReport) -> review_pb2.GetResidualReportResponse:
    draw, limit = report.draw, report.limit
    return encode(
        review_pb2.GetResidualReportResponse,
        report,
        overall=_from_estimate(report.overall),
        strata=map(_from_estimate, report.strata),
        sample=draw and encode(review_pb2.ResidualSample, draw, passages_now=report.passages_now),
        limit=limit and encode(review_pb2.ResidualLimit, limit, met=not report.refusal, message=report.refusal),
    )


def _from_estimate(item: ResidualEstimate) -> review_pb2.ResidualEstimate:
    message = encode(review_pb2.ResidualEstimate, item)
    message.MergeFrom(encode(review_pb2.ResidualEstimate, item.stratum))
    return message
