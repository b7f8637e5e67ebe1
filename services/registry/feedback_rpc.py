"""The gRPC methods of feedback: inference stores what callers said, people list it."""

from datetime import UTC, datetime

import grpc

from services.registry.adapters.compared_texts import StoredComparedTexts
from services.registry.adapters.sql import Begin
from services.registry.domain import Feedback, FeedbackTotals, FeedbackVerdict
from services.registry.handlers.feedback import store_feedback
from services.registry.handlers.specialists import unknown_specialist
from services.registry.ports import Anonymize
from services.registry.queries import Queries
from tailor.api.common.v1 import common_pb2
from tailor.api.registry.v1 import feedback_pb2, feedback_pb2_grpc
from tailor.events.envelope import derive_id
from tailor.rpc.auth import current_caller
from tailor.rpc.paging import page_size, position
from tailor.wire import from_datetime

VERDICTS = {
    common_pb2.FEEDBACK_VERDICT_ACCEPTED: FeedbackVerdict.ACCEPTED,
    common_pb2.FEEDBACK_VERDICT_EDITED: FeedbackVerdict.EDITED,
    common_pb2.FEEDBACK_VERDICT_REJECTED: FeedbackVerdict.REJECTED,
}
ENUMS = {verdict: number for number, verdict in VERDICTS.items()}


class FeedbackServicer(feedback_pb2_grpc.FeedbackServiceServicer):
    """Translates calls."""

    def __init__(self, begin: Begin, queries: Queries, anonymize: Anonymize, texts: StoredComparedTexts) -> None:
        self._begin = begin
        self._queries = queries
        self._anonymize = anonymize
        self._texts = texts

    def StoreFeedback(
        self, request: feedback_pb2.StoreFeedbackRequest, context: grpc.ServicerContext
    ) -> feedback_pb2.StoreFeedbackResponse:
        del context
        feedback = Feedback(
            feedback_id=derive_id("fbk", request.draft_id, request.caller_id),
            draft_id=request.draft_id,
            specialist="",
            adapter_digest="",
            verdict=VERDICTS.get(request.verdict),
            edited_text=request.edited_text,
            stars=request.stars,
            comment=request.comment,
            create_time=datetime.now(UTC),
        )
        stored = store_feedback(self._begin, self._anonymize, self._texts, feedback)
        return feedback_pb2.StoreFeedbackResponse(feedback=_from_feedback(stored))

    def ListFeedback(
        self, request: feedback_pb2.ListFeedbackRequest, context: grpc.ServicerContext
    ) -> feedback_pb2.ListFeedbackResponse:
        del context
        with self._begin() as tx:
            specialist = tx.specialists.find(request.specialist)
        if specialist is None or not current_caller().may_use(request.specialist):
            raise unknown_specialist()
        size = page_size(request.page_size, 50, 200)
        rows, totals = self._queries.feedback(
            request.specialist, request.adapter_digest, position(request.page_token), size + 1
        )
        return feedback_pb2.ListFeedbackResponse(
            feedback=[_from_feedback(feedback) for _, feedback in rows[:size]],
            next_page_token=str(rows[size - 1][0]) if len(rows) > size else "",
            totals=_from_totals(totals),
        )


def _from_feedback(feedback: Feedback) -> feedback_pb2.Feedback:
    return feedback_pb2.Feedback(
        feedback_id=feedback.feedback_id,
        draft_id=feedback.draft_id,
        specialist=feedback.specialist,
        adapter_digest=feedback.adapter_digest,
        verdict=ENUMS[feedback.verdict] if feedback.verdict else common_pb2.FEEDBACK_VERDICT_UNSPECIFIED,
        edited_text=feedback.edited_text,
        stars=feedback.stars,
        comment=feedback.comment,
        create_time=from_datetime(feedback.create_time),
    )


def _from_totals(totals: FeedbackTotals) -> feedback_pb2.FeedbackTotals:
    return feedback_pb2.FeedbackTotals(
        accepted=totals.accepted,
        edited=totals.edited,
        rejected=totals.rejected,
        rated=totals.rated,
        mean_stars=totals.mean_stars,
    )
