"""`tailor adapter show` and `compare`."""

import json

from tailor.api.evaluation.v1 import evaluation_pb2
from tailor.api.events.v1 import models_pb2
from tests.evaluations import make_estimate, make_evaluated, make_figures
from tests.fakes.serving import ADAPTER
from tests.unit.cli.conftest import Services, Tailor


def test_shows_what_was_measured_with_intervals_costs_and_the_verdict(tailor: Tailor, services: Services) -> None:
    cost = models_pb2.ModelCost(model="candidate", answers=16, median_seconds=1.25, p95_seconds=2.5, cut_answers=4)
    cost.price_per_1000, cost.currency = 0.25, "EUR"
    figures = make_figures("rougeL", base=0.1, few_shot=0.24, candidate=0.23)
    services.registry.evaluated = make_evaluated(
        ADAPTER, "engagement-reports", figures, costs=[cost], not_measured={"marks": "no judge model"}
    )

    shown = tailor("adapter", "show", ADAPTER[:8]).out

    assert "base +0.130 (+0.125 to +0.135)" in shown and "few_shot -0.010 (-0.015 to -0.005)" in shown
    assert "1.25 s" in shown and "2.50 s" in shown and "0.25 EUR" in shown
    assert "cut at the maximum of tokens: 4 of 16 answers of candidate" in shown
    assert "not measured: marks: no judge model" in shown
    document = json.loads(tailor("--output=json", "adapter", "show", ADAPTER).out)
    assert document["adapter"]["evaluation"]["metrics"][0]["gains"]["base"]["rows"] == 16


def test_shows_the_report_on_request(tailor: Tailor, services: Services) -> None:
    services.evaluation.report = "# Evaluation of engagement-reports"
    assert services.evaluation.report not in tailor("adapter", "show", ADAPTER).out
    assert services.evaluation.report in tailor("adapter", "show", ADAPTER, "--report").out


def test_shows_how_far_an_evaluation_is(tailor: Tailor, services: Services) -> None:
    services.registry.undecided = 9
    assert "evaluation running: 3 of 8 rows measured" in tailor("adapter", "show", ADAPTER).out


def test_compares_an_adapter_with_a_model_of_its_evaluation(tailor: Tailor, services: Services) -> None:
    row = evaluation_pb2.RowComparison(
        row_id="row_7",
        task="report",
        prompt="Write it.",
        first_answer="The old answer.",
        second_answer="The new answer.",
    )
    row.first_value, row.second_value, row.gain = 0.2, 0.5, 0.3
    group = evaluation_pb2.GroupComparison(
        rows=48, first=make_estimate(0.2), second=make_estimate(0.4), gain=make_estimate(0.2)
    )
    services.evaluation.comparison = evaluation_pb2.CompareEvaluationsResponse(
        metric="rougeL", groups=[group], rows=[row], only_first=3, next_page_token="3"
    )

    shown = tailor("adapter", "compare", "abababab:base", ADAPTER, "--task", "report").out

    assert "+0.200 (+0.195 to +0.205)" in shown and "0.400 (0.395 to 0.405)" in shown
    assert "The [-old-] {+new+} answer." in shown
    assert "0.200 to 0.500, gain +0.300" in shown
    assert "Not compared: 3 rows that only abababab:base has" in shown and "--page 3" in shown
    (request,) = services.evaluation.compared
    assert (request.first.adapter_digest, request.first.model, request.task) == (ADAPTER, "base", "report")
