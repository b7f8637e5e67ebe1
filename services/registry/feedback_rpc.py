"""The gRPC methods of feedback: inference stores what callers said, people list it."""

from datetime import UTC, datetime

import grpc

from services.registry.adapters.compared_texts import StoredComparedTexts
from services.registry.adapters.sql import Begin
from services.registry.domain import Feedback, FeedbackVerdict
from services.registry.handlers.feedback import store_feedback
from services.registry.handlers.specialists import unknown_specialist
from services.registry.ports import Anonymize
from services.registry.queries import Queries
from tailor.api.common.v1 import common_pb2
from tailor.api.registry.v1 import feedback_pb2, feedback_pb2_grpc
from tailor.codec import decode, encode
from tailor.events.envelope import derive_id
from tailor.rpc.auth import current_caller

VERDICTS = {
    common_pb2.FeedbackVerdict.Value(f"FEEDBACK_VERDICT_{verdict.name}"): verdict for verdict in FeedbackVerdict
}


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
        feedback = decode(
            Feedback,
            request,
            feedback_id=derive_id("fbk", request.draft_id, request.caller_id),
            specialist="",
            adapter_digest="",
            verdict=VERDICTS.get(request.verdict),
            create_time=datetime.now(UTC),
        )
        stored = store_feedback(self._begin, self._anonymize, self._texts, feedback)
        return feedback_pb2.StoreFeedbackResponse(feedback=encode(feedback_pb2.Feedback, stored))

    def ListFeedback(
        self, request: feedback_pb2.ListFeedbackRequest, context: grpc.ServicerContext
    ) -> feedback_pb2.ListFeedbackResponse:
        del context
        with self._begin() as tx:
            specialist = tx.specialists.find(name=request.specialist)
        if specialist is None or not current_caller().may_use(request.specialist):
            raise unknown_specialist()
        page, totals = self._queries.list_feedback(request)
        return feedback_pb2.ListFeedbackResponse(
            feedback=[encode(feedback_pb2.Feedback, feedback) for feedback in page.items],
            next_page_token=page.next_token,
            totals=encode(feedback_pb2.FeedbackTotals, totals),
        )
