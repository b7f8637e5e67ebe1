"""`tailor report-outcome` and `tailor specialist outcomes`."""

from tailor.api.registry.v1 import outcomes_pb2
from tests.fakes.serving import ADAPTER
from tests.unit.cli.conftest import Services, Tailor


def test_reports_what_a_draft_was_worth(tailor: Tailor, services: Services) -> None:
    shown = tailor("report-outcome", "drf_1", "--minutes", "25", "--satisfaction", "4").out

    assert shown == "Recorded for generation 3 of engagement-reports.\n"
    (report,) = services.inference.outcomes
    assert (report.draft_id, report.minutes, report.satisfaction) == ("drf_1", 25, 4)


def test_reports_work_without_a_draft_for_the_baseline(tailor: Tailor, services: Services) -> None:
    arguments = ("--specialist", "engagement-reports", "--minutes", "90", "--request-id", "memo-7")
    shown = tailor("report-outcome", *arguments).out

    assert shown == "Recorded for the baseline of engagement-reports.\n"
    assert services.inference.outcomes[0].request_id == "memo-7"


def test_an_unknown_draft_is_reported(tailor: Tailor) -> None:
    refused = tailor("report-outcome", "drf_9", "--minutes", "1")

    assert refused.code != 0 and "UNKNOWN_DRAFT" in refused.err


def test_shows_medians_by_generation_and_week_next_to_the_baseline(tailor: Tailor, services: Services) -> None:
    minutes = outcomes_pb2.MedianEstimate(count=50, median=25.5, low=18, high=33)
    figures = outcomes_pb2.OutcomeFigures(
        generation=3,
        adapter_digest=ADAPTER,
        minutes=minutes,
        kept_share=outcomes_pb2.MedianEstimate(count=2, median=0.8),
        deliverables=7,
    )
    baseline = outcomes_pb2.OutcomeFigures(minutes=outcomes_pb2.MedianEstimate(count=1, median=90))
    weekly = outcomes_pb2.OutcomeFigures(generation=3, minutes=minutes)
    weekly.week.FromJsonString("2026-05-04T00:00:00Z")
    published = outcomes_pb2.WeekOfDocuments(week=weekly.week, documents=120, deliverables=7, knowledge_articles=31)
    services.outcomes.answer = outcomes_pb2.GetOutcomesResponse(
        generations=[figures, baseline], weeks=[weekly], documents=[published]
    )

    shown = tailor("specialist", "outcomes", "engagement-reports", "--weeks", "4").out

    assert "26 (18 to 33), n = 50" in shown and "80%, n = 2" in shown and "90, n = 1" in shown
    assert "baseline" in shown and "2026-05-04" in shown and "120" in shown and "31" in shown
    (asked,) = services.outcomes.asked
    assert (asked.specialist, asked.weeks) == ("engagement-reports", 4)


def test_says_how_outcomes_come_if_there_are_none(tailor: Tailor) -> None:
    assert "No outcomes yet" in tailor("specialist", "outcomes", "engagement-reports").out
