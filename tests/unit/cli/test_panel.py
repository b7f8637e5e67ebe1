"""`tailor specialist panel`."""

from tailor.api.registry.v1 import panel_pb2
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

    shown = tailor("specialist", "panel", "engagement-reports").out

    assert "30 judgements with marks" in shown and "Is it kind?" in shown
    assert "3.46 (3.10 to 3.80)" in shown and "2.00" in shown and "base" in shown and "2026-11" in shown


def test_says_that_no_draft_has_a_mark(tailor: Tailor) -> None:
    assert "No draft has a mark yet." in tailor("specialist", "panel", "engagement-reports").out
