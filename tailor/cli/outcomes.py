"""`tailor report-outcome`: what a draft was worth."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from tailor.api.inference.v1 import inference_pb2
from tailor.cli.calls import calling
from tailor.cli.session import session_of
from tailor.client import OutcomeReceipt

app = typer.Typer()


@app.command()
def report_outcome(
    context: typer.Context,
    draft: Annotated[str, typer.Argument(metavar="[DRAFT]", help="The draft's id; none for work without Tailor.")] = "",
    *,
    specialist: Annotated[
        str, typer.Option(metavar="NAME", help="Whose work it is; needed without a draft, or for one of the base.")
    ] = "",
    minutes: Annotated[float, typer.Option(min=0, help="From the draft to the deliverable.")] = 0.0,
    satisfaction: Annotated[int, typer.Option(min=0, max=5, help="1 to 5.")] = 0,
    request_id: Annotated[str, typer.Option(help="A repeated command with the same id counts once.")] = "",
) -> None:
    """Report what a draft was worth: the minutes from it to the deliverable, and how satisfied you are.

    Without a draft, report how long the same work takes without Tailor, for the baseline."""
    session = session_of(context)
    with (
        session.connections.client() as client,
        calling("inference", inference_pb2.ReportOutcomeRequest.DESCRIPTOR.full_name),
    ):
        receipt = client.report_outcome(
            draft, specialist=specialist, minutes=minutes, satisfaction=satisfaction, request_id=request_id
        )
    document = {**asdict(receipt), "create_time": receipt.create_time.isoformat()}
    session.output.emit(document, lambda console: _print_receipt(console, receipt))


def _print_receipt(console: Console, receipt: OutcomeReceipt) -> None:
    counted = f"generation {receipt.generation}" if receipt.generation else "the baseline"
    console.print(f"Recorded for {counted} of {receipt.specialist}.", highlight=False)
