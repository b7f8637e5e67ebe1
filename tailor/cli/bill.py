"""`tailor bill`: what a specialist used in a month."""

from collections.abc import Iterable
from typing import Annotated

import typer
from rich.console import Console

from tailor.api.registry.v1 import reports_pb2
from tailor.cli.adapters import SpecialistName
from tailor.cli.calls import unary
from tailor.cli.messages import short_enum, to_dict
from tailor.cli.output import table
from tailor.cli.session import session_of

COMPUTE_SECONDS = 60.0
COLUMNS = ("what", "how much", "price")
Month = Annotated[str, typer.Option(metavar="YYYY-MM", help="The month, in UTC; the current one by default.")]

app = typer.Typer()


@app.command()
def bill(context: typer.Context, specialist: SpecialistName, month: Month = "") -> None:
    """Show what a specialist used in a month: device hours of its runs, tokens of teachers and judge models, and judgements.

    Each run counts once, in the month of its last report. Prices appear only if the installation has set them.
    """
    session = session_of(context)
    request = reports_pb2.GetLedgerRequest(specialist=specialist, month=month)
    answer = unary("registry", session.connections.reports.GetLedger, request, COMPUTE_SECONDS)
    session.output.emit(to_dict(answer), lambda console: _print(console, answer))


def _print(console: Console, answer: reports_pb2.GetLedgerResponse) -> None:
    console.print(table(f"used in {answer.month}", COLUMNS, list_rows(answer.lines)))
    for sentence in describe_totals(answer):
        console.print(sentence, highlight=False)


def list_rows(lines: Iterable[reports_pb2.LedgerLine]) -> list[tuple[str, str, str]]:
    """The lines as rows of `COLUMNS`."""
    return [(_describe_kind(line), _describe_quantity(line), _describe_price(line)) for line in lines]


def describe_totals(answer: reports_pb2.GetLedgerResponse) -> list[str]:
    """Sentences about the sums by currency, and about the budget."""
    sentences = []
    for currency in sorted({line.currency for line in answer.lines if line.HasField("amount")}):
        amounts = [line.amount for line in answer.lines if line.currency == currency]
        sentences.append(f"In all {sum(amounts):,.2f} {currency}.")
    if any(not line.HasField("amount") for line in answer.lines):
        sentences.append("A dash stands for a unit that has no price in this installation.")
    if answer.monthly_budget:
        sentences.append(f"The budget for the compute of a month is {answer.monthly_budget:,.2f}.")
    return sentences


def _describe_kind(line: reports_pb2.LedgerLine) -> str:
    kind = short_enum(reports_pb2.LedgerKind, line.kind, "LEDGER_KIND_").replace("_", " ")
    return f"{kind} on {line.device}" if line.device else kind


def _describe_quantity(line: reports_pb2.LedgerLine) -> str:
    if line.kind == reports_pb2.LEDGER_KIND_COMPUTE:
        return f"{line.quantity:,.2f} device hours of {line.runs} runs"
    return f"{line.quantity:,.0f}"


def _describe_price(line: reports_pb2.LedgerLine) -> str:
    return f"{line.amount:,.2f} {line.currency}" if line.HasField("amount") else "-"
