"""`tailor bill`."""

from tailor.api.registry.v1 import reports_pb2
from tests.unit.cli.conftest import Services, Tailor


def test_shows_what_was_used_with_prices_and_the_budget(tailor: Tailor, services: Services) -> None:
    compute = reports_pb2.LedgerLine(
        kind=reports_pb2.LEDGER_KIND_COMPUTE, device="1 x NVIDIA H100", quantity=2.5, runs=3, amount=10, currency="EUR"
    )
    tokens = reports_pb2.LedgerLine(kind=reports_pb2.LEDGER_KIND_TEACHER_TOKENS, quantity=1_200_000)
    services.reports.ledger = reports_pb2.GetLedgerResponse(
        month="2026-05", lines=[compute, tokens], monthly_budget=200, budget_used=10
    )

    shown = tailor("bill", "engagement-reports", "--month", "2026-05").out

    assert "compute on 1 x NVIDIA H100" in shown and "2.50 device hours of 3 runs" in shown and "10.00 EUR" in shown
    assert "teacher tokens" in shown and "1,200,000" in shown
    assert "In all 10.00 EUR." in shown and "A dash stands for" in shown
    assert "10.00 of the monthly budget of 200.00 are used." in shown
    (asked,) = services.reports.asked
    assert (asked.specialist, asked.month) == ("engagement-reports", "2026-05")


def test_a_month_without_use_is_empty(tailor: Tailor, services: Services) -> None:
    services.reports.ledger = reports_pb2.GetLedgerResponse(month="2026-05")
    assert "none yet" in tailor("bill", "engagement-reports").out
