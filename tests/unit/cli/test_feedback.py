"""`tailor specialist feedback`."""

from tailor.api.common.v1 import common_pb2
from tailor.api.registry.v1 import feedback_pb2
from tests.fakes.serving import ADAPTER
from tests.unit.cli.conftest import Services, Tailor


def test_shows_totals_and_the_newest_feedback(tailor: Tailor, services: Services) -> None:
    said = feedback_pb2.Feedback(
        draft_id="drf_1",
        adapter_digest=ADAPTER,
        verdict=common_pb2.FEEDBACK_VERDICT_EDITED,
        edited_text="Better.",
        stars=4,
    )
    totals = feedback_pb2.FeedbackTotals(accepted=3, edited=1, rated=2, mean_stars=4.5)
    services.feedback.page = feedback_pb2.ListFeedbackResponse(feedback=[said], totals=totals)

    shown = tailor("specialist", "feedback", "engagement-reports", "--adapter", "abababab", "--limit", "5")

    assert "3 accepted, 1 edited, 0 rejected; 4.50 of 5 stars from 2" in shown.err
    assert "drf_1" in shown.out and "7 characters" in shown.out
    (asked,) = services.feedback.asked
    assert (asked.specialist, asked.adapter_digest, asked.page_size) == ("engagement-reports", ADAPTER, 5)
