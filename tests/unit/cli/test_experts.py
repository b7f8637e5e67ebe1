"""`tailor specialist panel` and `agreement`: what experts say together."""

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
