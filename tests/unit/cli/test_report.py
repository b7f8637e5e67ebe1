"""`tailor specialist report`."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import outcomes_pb2, registry_pb2, reports_pb2
from tests.evaluations import make_evaluated, make_figures
from tests.fakes.serving import ADAPTER
from tests.unit.cli.conftest import Services, Tailor

MAY = datetime(2026, 5, 4, 9, 30, tzinfo=UTC)
OTHER = "5e" * 32


def generation(number: int, adapter: str, month: int = 5) -> models_pb2.SpecialistServing:
    serving = models_pb2.SpecialistServing(generation=number, adapter_digest=adapter)
    serving.create_time.FromDatetime(MAY.replace(month=month))
    return serving


@pytest.fixture
def month(services: Services) -> Services:
    """A month with an evaluation, outcomes, costs, a promotion, a rollback and an override."""
    evaluated = make_evaluated(ADAPTER, "engagement-reports", make_figures("rougeL", base=0.1, candidate=0.3))
    evaluated.create_time.FromDatetime(MAY)
    services.registry.evaluated = evaluated
    minutes = outcomes_pb2.MedianEstimate(count=50, median=25, low=18, high=33)
    services.outcomes.answer = outcomes_pb2.GetOutcomesResponse(
        generations=[
            outcomes_pb2.OutcomeFigures(generation=3, adapter_digest=ADAPTER, minutes=minutes, deliverables=7),
            outcomes_pb2.OutcomeFigures(minutes=outcomes_pb2.MedianEstimate(count=1, median=90)),
        ]
    )
    inside, outside = outcomes_pb2.WeekOfDocuments(documents=120, knowledge_articles=31), outcomes_pb2.WeekOfDocuments()
    inside.week.FromDatetime(datetime(2026, 4, 27, tzinfo=UTC))
    outside.week.FromDatetime(datetime(2026, 4, 20, tzinfo=UTC))
    services.outcomes.answer.documents.extend([inside, outside])
    line = reports_pb2.LedgerLine(
        kind=reports_pb2.LEDGER_KIND_COMPUTE, device="1 x H100", quantity=2.5, runs=3, amount=10, currency="EUR"
    )
    serving = reports_pb2.LedgerLine(kind=reports_pb2.LEDGER_KIND_SERVING, device="1 x H100", quantity=0.25, runs=1200)
    storage = reports_pb2.LedgerLine(kind=reports_pb2.LEDGER_KIND_STORAGE, quantity=1.5)
    experts = reports_pb2.LedgerLine(kind=reports_pb2.LEDGER_KIND_EXPERT_MINUTES, quantity=95, runs=70)
    services.reports.ledger = reports_pb2.GetLedgerResponse(
        month="2026-05", lines=[line, serving, storage, experts], monthly_budget=8, budget_used=10
    )
    services.reports.ledger.start_time.FromDatetime(datetime(2026, 5, 1, tzinfo=UTC))
    services.reports.generations = reports_pb2.ListGenerationsResponse(
        generations=[
            generation(4, OTHER, month=6),
            generation(3, ""),
            generation(2, ADAPTER),
            generation(1, OTHER, month=4),
        ]
    )
    override = registry_pb2.OperatorDecision(
        kind=registry_pb2.OPERATOR_DECISION_KIND_OVERRIDE,
        adapter_digest=ADAPTER,
        key_id="key_1",
        reason="The board | <b>asked</b>.",
        generation=2,
    )
    override.create_time.FromDatetime(MAY)
    services.registry.decisions = [override]
    return services


def test_writes_quality_outcomes_cost_and_changes_as_markdown(tailor: Tailor, month: Services, tmp_path: Path) -> None:
    shown = tailor("specialist", "report", "engagement-reports", "--month", "2026-05", "--out", str(tmp_path))

    assert shown.code == 0, shown.err
    assert [path.name for path in tmp_path.iterdir()] == ["engagement-reports-2026-05.md"]
    text = (tmp_path / "engagement-reports-2026-05.md").read_text(encoding="utf-8")
    assert text.startswith("# engagement-reports in 2026-05\n")
    for title in ("Quality", "Outcomes", "Published", "Cost", "Changes"):
        assert f"\n## {title}\n" in text
    assert "| rougeL | 0.100 (0.095 to 0.105) | - | 0.300 (0.295 to 0.305) | +0.200" in text
    assert "25 (18 to 33), n = 50" in text and "| baseline | - | 90, n = 1 |" in text
    assert "2.50 device hours of 3 runs | 10.00 EUR" in text and "In all 10.00 EUR." in text
    assert "| serving on 1 x H100 | 0.25 device hours of 1,200 answers | - |" in text
    assert (
        "| storage | 1.500 gigabyte-months | - |" in text
        and "| expert minutes | 95 minutes of 70 judgements | - |" in text
    )
    assert "The monthly budget of 8.00 is exceeded by 2.00" in text
    assert "| 2026-04-27 | 120 | 31 | 0 |" in text and "2026-04-20" not in text
    assert "| 2026-05-04 09:30 | 2 | promotion |" in text and "| 3 | rollback | the base |" in text
    assert "The board \\| &lt;b&gt;asked&lt;/b&gt;." in text
    assert "| 4 |" not in text and "| 1 |" not in text
    assert (month.outcomes.asked[0].month, month.reports.asked[0].month) == ("2026-05", "2026-05")


def test_a_month_without_anything_says_so(tailor: Tailor, services: Services, tmp_path: Path) -> None:
    services.reports.ledger = reports_pb2.GetLedgerResponse(month="2020-01")
    services.reports.ledger.start_time.FromDatetime(datetime(2020, 1, 1, tzinfo=UTC))
    tailor("specialist", "report", "engagement-reports", "--out", str(tmp_path))

    text = (tmp_path / "engagement-reports-2020-01.md").read_text(encoding="utf-8")
    assert "No adapter was evaluated" in text and "No outcomes were reported" in text
    assert "Nothing was published" in text and "Nothing was used." in text and "did not change" in text


def test_a_folder_that_cannot_be_written_is_reported(tailor: Tailor, month: Services, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = tailor("specialist", "report", "engagement-reports", "--out", str(tmp_path / "file" / "below"))
    assert refused.code != 0 and "CANNOT_WRITE" in refused.err
