"""`tailor evaluations compare`."""

from tailor.api.evaluation.v1 import evaluation_pb2
from tests.evaluations import make_estimate
from tests.fakes.serving import ADAPTER
from tests.unit.cli.conftest import Services, Tailor


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

    shown = tailor("evaluations", "compare", "abababab:base", ADAPTER, "--task", "report").out

    assert "+0.200 (+0.195 to +0.205)" in shown and "0.400 (0.395 to 0.405)" in shown
    assert "The [-old-] {+new+} answer." in shown
    assert "0.200 to 0.500, gain +0.300" in shown
    assert "Not compared: 3 rows that only abababab:base has" in shown and "--page 3" in shown
    (request,) = services.evaluation.compared
    assert (request.first.adapter_digest, request.first.model, request.task) == (ADAPTER, "base", "report")
