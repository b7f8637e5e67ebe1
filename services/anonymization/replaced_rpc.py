"""The gRPC service of replaced strings: translates, calls a handler, answers."""

from collections.abc import Iterator

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from services.anonymization.policy.installed import CurrentPolicy
from services.anonymization.policy_wire import to_installed_message
from services.anonymization.review import replaced
from services.anonymization.review.replaced import ReplacedReview
from services.anonymization.review.replaced_domain import ReplacedDecision, ReplacedPlace, ReplacedString
from services.anonymization.review_rpc import reviewer_id
from tailor.api.anonymization.v1 import replaced_pb2, replaced_pb2_grpc
from tailor.errors import InvalidArgument, Reason

DECISIONS = {
    ReplacedDecision.ALLOWED: replaced_pb2.REPLACED_DECISION_ALLOWED,
    ReplacedDecision.KEPT: replaced_pb2.REPLACED_DECISION_KEPT,
}


class ReplacedServicer(replaced_pb2_grpc.ReplacedServiceServicer):
    """Translates calls. `current` is the policy in force."""

    def __init__(self, review: ReplacedReview, current: CurrentPolicy) -> None:
        self._review = review
        self._current = current

    def ListReplaced(
        self, request: replaced_pb2.ListReplacedRequest, context: grpc.ServicerContext
    ) -> replaced_pb2.ListReplacedResponse:
        del context
        counted = self._review.strings.count_documents()
        page = self._review.strings.list_page(request, counted.min_documents)
        return replaced_pb2.ListReplacedResponse(
            strings=map(_from_string, page.items),
            next_page_token=page.next_token,
            documents=counted.documents,
            words=counted.words,
            min_documents=counted.min_documents,
        )

    def GetReplaced(
        self, request: replaced_pb2.GetReplacedRequest, context: grpc.ServicerContext
    ) -> replaced_pb2.GetReplacedResponse:
        del context
        reviewer = reviewer_id(request.reviewer)
        revealed = replaced.get_replaced(
            self._review, reviewer, request.entity_type, request.surrogate, with_places=not request.without_places
        )
        return replaced_pb2.GetReplacedResponse(
            counts=_from_string(revealed.counts), value=revealed.value, places=map(_from_place, revealed.places)
        )

    def DecideReplaced(
        self, request: replaced_pb2.DecideReplacedRequest, context: grpc.ServicerContext
    ) -> replaced_pb2.DecideReplacedResponse:
        del context
        reviewer, decision = reviewer_id(request.reviewer), _to_decision(request.decision)
        replaced.decide_replaced(self._review, reviewer, request.entity_type, request.surrogate, decision)
        installed = self._current.look()
        outdated = self._review.ledger.count_outdated(installed.policy_digest, installed.detectors_digest)
        return replaced_pb2.DecideReplacedResponse(policy=to_installed_message(installed), outdated_documents=outdated)

    def MeasureOverRedaction(
        self,
        request_iterator: Iterator[replaced_pb2.MeasureOverRedactionRequest],
        context: grpc.ServicerContext,
    ) -> replaced_pb2.MeasureOverRedactionResponse:
        del context
        batches = (message.document_ids for message in request_iterator)
        measured = replaced.measure_over_redaction(self._review, batches)
        return replaced_pb2.MeasureOverRedactionResponse(
            replacements=measured.replacements, words=measured.words, documents=measured.documents
        )


def _to_decision(number: int) -> ReplacedDecision:
    decision = next((name for name, value in DECISIONS.items() if value == number), None)
    if decision is None:
        raise InvalidArgument(Reason.INVALID_ARGUMENT, "`decision` must be ALLOWED or KEPT.")
    return decision


def _from_string(item: ReplacedString) -> replaced_pb2.ReplacedString:
    message = replaced_pb2.ReplacedString(
        entity_type=item.entity_type,
        surrogate=item.surrogate,
        times=item.times,
        documents=item.documents,
        departments=item.departments,
        sources=item.sources,
        decided_by=item.decided_by,
    )
    if item.decision is not None:
        decided = Timestamp()
        decided.FromMilliseconds(item.time_ms)
        message.decide_time.CopyFrom(decided)
        message.decision = DECISIONS[item.decision]
    return message


def _from_place(place: ReplacedPlace) -> replaced_pb2.ReplacedPlace:
    return replaced_pb2.ReplacedPlace(
        document_id=place.document_id,
        source=place.source,
        department=place.department,
        text=place.text,
        start=place.start,
        end=place.end,
    )
