"""`tailor specialist agreement`."""

from tailor.api.registry.v1 import panel_pb2
from tests.unit.cli.conftest import Services, Tailor


def test_shows_the_panel_and_each_expert(tailor: Tailor, services: Services) -> None:
    panel = panel_pb2.CriterionAgreement(criterion="ranking", units=12, alpha=0.743, low=0.39, high=1.0)
    noisy = panel_pb2.CriterionAgreement(criterion="ranking", expert_id="exp_2", units=4, alpha=-0.1)
    same = panel_pb2.CriterionAgreement(criterion="style", units=3)
    services.panel.answer = panel_pb2.GetAgreementResponse(agreement=[panel, noisy, same], judgements=30, experts=3)

    shown = tailor("specialist", "agreement", "engagement-reports")

    assert "30 judgements by 3 experts" in shown.err
    assert "0.74 (0.39 to 1.00)" in shown.out and "the panel" in shown.out
    assert "exp_2" in shown.out and "-0.10" in shown.out


def test_says_what_is_missing_if_no_draft_was_judged_twice(tailor: Tailor) -> None:
    assert "No draft was judged by two experts yet" in tailor("specialist", "agreement", "engagement-reports").err
