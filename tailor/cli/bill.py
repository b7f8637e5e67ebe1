"""`tailor specialist bill`: what a specialist used in a month."""

from tailor.api.registry.v1 import reports_pb2
from tailor.cli.options import Month, SpecialistName
from tailor.cli.session import CommandSession
from tailor.cli.tables import emit_list
from tailor.columns import columns, read

COMPUTE_SECONDS = 60.0
QUANTITIES = {
    reports_pb2.LEDGER_KIND_COMPUTE: "{:,.2f} device hours of {:,} runs",
    reports_pb2.LEDGER_KIND_SERVING: "{:,.2f} device hours of {:,} answers",
    reports_pb2.LEDGER_KIND_STORAGE: "{:,.3f} gigabyte-months",
    reports_pb2.LEDGER_KIND_EXPERT_MINUTES: "{:,.0f} minutes of {:,} judgements",
}


def bill(session: CommandSession, specialist: SpecialistName, month: Month = "") -> None:
    """Show what a specialist used in a month: device hours of its runs and answers, tokens, storage, and experts' judgements and minutes.

    Each run counts once, in the month of its last report. Prices appear only if the installation has set them.
    """
    request = reports_pb2.GetLedgerRequest(specialist=specialist, month=month)
    answer = session.connections.reports.GetLedger(request, timeout=COMPUTE_SECONDS)
    emit_list(session, answer.lines, COLUMNS, document=answer, remarks=describe_totals(answer))


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
    return f"{read(line, 'kind')} on {line.device}" if line.device else str(read(line, "kind"))


def _describe_quantity(line: reports_pb2.LedgerLine) -> str:
    form = QUANTITIES.get(line.kind, "{:,.0f}")
    return form.format(line.quantity, line.runs)


COLUMNS = columns(
    None,
    ("what", _describe_kind),
    ("how much", _describe_quantity),
    ("price", lambda line: f"{line.amount:,.2f} {line.currency}" if line.HasField("amount") else "-"),
)
