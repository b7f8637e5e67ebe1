"""`tailor specialist bill`."""

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

    shown = tailor("specialist", "bill", "engagement-reports", "--month", "2026-05")

    assert "compute on 1 x NVIDIA H100\t2.50 device hours of 3 runs\t10.00 EUR\n" in shown.out
    assert "teacher tokens\t1,200,000\t" in shown.out
    assert "In all 10.00 EUR." in shown.err and "A dash stands for" in shown.err
    assert "10.00 of the monthly budget of 200.00 are used." in shown.err
    (asked,) = services.reports.asked
    assert (asked.specialist, asked.month) == ("engagement-reports", "2026-05")
