"""`tailor specialist panel`: the marks that experts gave a specialist's drafts."""

import typer
from rich.console import Console

from tailor.api.registry.v1 import panel_pb2
from tailor.cli.adapters import SpecialistName
from tailor.cli.calls import unary
from tailor.cli.messages import to_dict
from tailor.cli.output import short, table
from tailor.cli.session import session_of

COMPUTE_SECONDS = 60.0

app = typer.Typer()


@app.command()
def panel(context: typer.Context, specialist: SpecialistName) -> None:
    """Show the mean marks of drafts, 1 to 5, by criterion, month and adapter. Intervals are 95 % ones over drafts."""
    session = session_of(context)
    request = panel_pb2.GetPanelReportRequest(specialist=specialist)
    answer = unary("registry", session.connections.panel.GetPanelReport, request, COMPUTE_SECONDS)
    session.output.emit(to_dict(answer), lambda console: _print(console, answer))


def _print(console: Console, answer: panel_pb2.GetPanelReportResponse) -> None:
    if not answer.means:
        console.print("No draft has a mark yet.")
        return
    console.print(f"{answer.judgements} judgements with marks", highlight=False)
    columns = ("criterion", "month", "adapter", "mean", "drafts", "experts", "question")
    console.print(table("mean marks, 95 % intervals", columns, map(_row, answer.means)))


def _row(item: panel_pb2.PanelMean) -> tuple[str, ...]:
    interval = f" ({item.low:.2f} to {item.high:.2f})" if item.HasField("low") else ""
    adapter = short(item.adapter_digest) if item.adapter_digest else "base"
    counts = (str(item.drafts), str(item.experts))
    return (item.criterion, item.month, adapter, f"{item.mean:.2f}{interval}", *counts, item.question)
