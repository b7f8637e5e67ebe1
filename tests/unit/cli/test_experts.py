"""What experts and callers say of a specialist, and what it costs."""

from tailor.api.common.v1 import common_pb2
from tailor.api.registry.v1 import feedback_pb2, outcomes_pb2, panel_pb2, registry_pb2, reports_pb2
from tailor.api.synthetic.v1 import synthesis_pb2
from tests.evaluations import make_estimate
from tests.fakes.serving import ADAPTER
from tests.unit.cli.conftest import Services, Tailor


def test_shows_mean_marks_with_intervals_and_questions(tailor: Tailor, services: Services) -> None:
    mean = panel_pb2.PanelMean(
        criterion="tone",
        question="Is it kind?",
        adapter_digest="a" * 64,
        month="2026-11",
        drafts=12,
        experts=3,
        mean=3.456,
    )
    mean.low, mean.high = 3.1, 3.8
    base = panel_pb2.PanelMean(criterion="tone", month="2026-10", drafts=1, experts=1, mean=2)
    services.panel.report = panel_pb2.GetPanelReportResponse(means=[mean, base], judgements=30)

    shown = tailor("specialist", "panel", "engagement-reports")

    assert shown.err == "30 judgements with marks\n"
    assert shown.out.splitlines()[0].split("\t")[1:] == [
        "2026-11",
        "a" * 64,
        "3.46 (3.10 to 3.80)",
        "12",
        "3",
        "Is it kind?",
    ]
    assert "base\t2.00" in shown.out


def test_shows_the_panel_and_each_expert(tailor: Tailor, services: Services) -> None:
    panel = panel_pb2.CriterionAgreement(criterion="ranking", units=12, alpha=0.743, low=0.39, high=1.0)
    noisy = panel_pb2.CriterionAgreement(criterion="ranking", expert_id="exp_2", units=4, alpha=-0.1)
    same = panel_pb2.CriterionAgreement(criterion="style", units=3)
    services.panel.answer = panel_pb2.GetAgreementResponse(agreement=[panel, noisy, same], judgements=30, experts=3)

    shown = tailor("specialist", "agreement", "engagement-reports")

    assert "30 judgements by 3 experts" in shown.err
    assert "0.74 (0.39 to 1.00)" in shown.out and "the panel" in shown.out
    assert "exp_2" in shown.out and "-0.10" in shown.out


def propose(services: Services, *texts: str) -> None:
    services.panel.guidelines = panel_pb2.ProposeGuidelinesResponse(
        guidelines=[
            panel_pb2.ProposedGuideline(
                text=text,
                comments=4,
                experts=2,
                examples=[panel_pb2.CommentExample(text=f"{text} Please.", judgement_id="jdg_7")],
            )
            for text in texts
        ],
        comments=11,
    )


def test_shows_what_comments_ask_for(tailor: Tailor, services: Services) -> None:
    propose(services, "Name the owner.")
    shown = tailor("specialist", "guidelines", "engagement-reports")
    assert "11 comments" in shown.err and "Name the owner." in shown.out
    assert "1: Name the owner. Please. (jdg_7)" in shown.err


def test_takes_a_guideline_over_into_the_definition(tailor: Tailor, services: Services) -> None:
    propose(services, "Close kindly.", "Name the owner.")
    specialist = services.registry.specialist
    specialist.evaluation.guidelines = "Short sentences.\n"
    assert tailor("specialist", "guidelines", specialist.name, "--take", "2").code == 0
    assert services.registry.specialist.evaluation.guidelines == "Short sentences.\nName the owner."
    assert (
        tailor("specialist", "guidelines", specialist.name, "--take", "1", "--text", "Close as a colleague.").code == 0
    )
    assert services.registry.specialist.evaluation.guidelines.endswith("Name the owner.\nClose as a colleague.")
    refused = tailor("specialist", "guidelines", specialist.name, "--take", "3")
    assert refused.code != 0 and "There are 2 proposed guidelines" in refused.err


def test_counts_what_became_of_comments(tailor: Tailor, services: Services) -> None:
    services.synthesis.comments = synthesis_pb2.CountCommentsResponse(
        comments=9,
        accepted=5,
        waiting=1,
        held_out=1,
        refusals=[synthesis_pb2.SynthesisRefusals(reason="comment_not_met", rows=2)],
        teacher=synthesis_pb2.TEACHER_STATE_NONE,
        tokens_per_month=50_000,
        tokens_this_month=1_200,
    )
    shown = tailor("synthesis", "comments", "reports").out
    assert "9 comments" in shown and "refused: comment not met" in shown
    assert "1,200 of 50,000 tokens" in shown and "No teacher is configured" in shown


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
        edit_retention=outcomes_pb2.MedianEstimate(count=2, median=0.8),
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


def test_shows_what_was_used_with_prices_and_the_budget(tailor: Tailor, services: Services) -> None:
    compute = reports_pb2.LedgerLine(
        kind=reports_pb2.LEDGER_KIND_COMPUTE, device="1 x NVIDIA H100", quantity=2.5, runs=3, amount=10, currency="EUR"
    )
    tokens = reports_pb2.LedgerLine(kind=reports_pb2.LEDGER_KIND_TEACHER_TOKENS, quantity=1_200_000)
    services.reports.ledger = reports_pb2.GetLedgerResponse(
        month="2026-05", lines=[compute, tokens], monthly_budget=200, budget_used=10
    )

    shown = tailor("specialist", "bill", "engagement-reports", "--month", "2026-05")

    assert "compute on 1 x NVIDIA H100\t2.50 device hours of 3 runs\t10.00 EUR\n" in shown.out
    assert "teacher tokens\t1,200,000\t" in shown.out
    assert "In all 10.00 EUR." in shown.err and "A dash stands for" in shown.err
    assert "10.00 of the monthly budget of 200.00 are used." in shown.err
    (asked,) = services.reports.asked
    assert (asked.specialist, asked.month) == ("engagement-reports", "2026-05")


NAME = "engagement-reports"


def test_shows_scores_with_intervals_and_pins_by_first_digits(tailor: Tailor, services: Services) -> None:
    tuned = registry_pb2.LeaderboardEntry(rank=1, model="candidate", adapter_digest=ADAPTER, rows=16)
    tuned.state = registry_pb2.ADAPTER_STATE_SERVING
    tuned.scores["rougeL"].CopyFrom(make_estimate(0.3))
    tuned.cost.median_seconds, tuned.cost.price_per_1000, tuned.cost.currency = 1.5, 0.25, "EUR"
    services.registry.entries = [tuned]

    shown = tailor("specialist", "leaderboard", NAME, "--pin", "abababab", "--unpin", "few_shot").out

    assert "0.300 (0.295 to 0.305)" in shown and "serving" in shown
    assert "1.50 s" in shown and "0.25 EUR" in shown
    assert services.registry.pins == [(ADAPTER, True), ("few_shot", False)]
