"""`tailor specialist bill`: what a specialist used in a month."""

from typing import Annotated

import typer

from tailor.api.registry.v1 import reports_pb2
from tailor.cli.adapters import SpecialistName
from tailor.cli.calls import unary
from tailor.cli.columns import columns, emit_list
from tailor.cli.messages import short_enum, to_dict
from tailor.cli.session import CommandSession

COMPUTE_SECONDS = 60.0
QUANTITIES = {
    reports_pb2.LEDGER_KIND_COMPUTE: "{:,.2f} device hours of {:,} runs",
    reports_pb2.LEDGER_KIND_SERVING: "{:,.2f} device hours of {:,} answers",
    reports_pb2.LEDGER_KIND_STORAGE: "{:,.3f} gigabyte-months",
    reports_pb2.LEDGER_KIND_EXPERT_MINUTES: "{:,.0f} minutes of {:,} judgements",
}
Month = Annotated[str, typer.Option(metavar="YYYY-MM", help="The month, in UTC; the current one by default.")]


def bill(session: CommandSession, specialist: SpecialistName, month: Month = "") -> None:
    """Show what a specialist used in a month: device hours of its runs and answers, tokens, storage, and experts' judgements and minutes.

    Each run counts once, in the month of its last report. Prices appear only if the installation has set them.
    """
    request = reports_pb2.GetLedgerRequest(specialist=specialist, month=month)
    answer = unary("registry", session.connections.reports.GetLedger, request, COMPUTE_SECONDS)
    remarks = describe_totals(answer)
    emit_list(
        session,
        answer.lines,
        COLUMNS,
        document=to_dict(answer),
        remarks=lambda console: console.print("\n".join(remarks), highlight=False),
    )


def describe_totals(answer: reports_pb2.GetLedgerResponse) -> list[str]:
    """Sentences about the sums by currency, and about the budget."""
    sentences = []
    for currency in sorted({line.currency for line in answer.lines if line.HasField("amount")}):
        amounts = [line.amount for line in answer.lines if line.currency == currency]
        sentences.append(f"In all {sum(amounts):,.2f} {currency}.")
    if any(not line.HasField("amount") for line in answer.lines):
        sentences.append("A dash stands for a unit that has no price in this installation.")
    if answer.monthly_budget:
        sentences.append(_describe_budget(answer.budget_used, answer.monthly_budget))
    return sentences


def _describe_budget(used: float, budget: float) -> str:
    if used <= budget:
        return f"{used:,.2f} of the monthly budget of {budget:,.2f} are used."
    return f"The monthly budget of {budget:,.2f} is exceeded by {used - budget:,.2f}: new runs are refused until the next month."


def _describe_kind(line: reports_pb2.LedgerLine) -> str:
    kind = short_enum(reports_pb2.LedgerKind, line.kind, "LEDGER_KIND_").replace("_", " ")
    return f"{kind} on {line.device}" if line.device else kind


def _describe_quantity(line: reports_pb2.LedgerLine) -> str:
    form = QUANTITIES.get(line.kind, "{:,.0f}")
    return form.format(line.quantity, line.runs)


def _describe_price(line: reports_pb2.LedgerLine) -> str:
    return f"{line.amount:,.2f} {line.currency}" if line.HasField("amount") else "-"


COLUMNS = columns(("what", _describe_kind), ("how much", _describe_quantity), ("price", _describe_price))
