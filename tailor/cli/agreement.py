"""`tailor agreement`: how far a specialist's experts agree."""

import typer
from rich.console import Console

from tailor.api.registry.v1 import panel_pb2
from tailor.cli.adapters import SpecialistName
from tailor.cli.calls import unary
from tailor.cli.messages import to_dict
from tailor.cli.output import table
from tailor.cli.session import session_of

COMPUTE_SECONDS = 60.0

app = typer.Typer()


@app.command()
def agreement(context: typer.Context, specialist: SpecialistName) -> None:
    """Show how far experts agree: Krippendorff's alpha by criterion, of the panel and of each expert with the others.

    1 is perfect agreement, 0 is what chance gives. Only drafts that at least two experts judged count.
    """
    session = session_of(context)
    request = panel_pb2.GetAgreementRequest(specialist=specialist)
    answer = unary("registry", session.connections.panel.GetAgreement, request, COMPUTE_SECONDS)
    session.output.emit(to_dict(answer), lambda console: _print(console, answer))


def _print(console: Console, answer: panel_pb2.GetAgreementResponse) -> None:
    console.print(f"{answer.judgements} judgements by {answer.experts} experts", highlight=False)
    rows = [_row(item) for item in answer.agreement if item.units]
    if not rows:
        console.print("No draft was judged by two experts yet, so there is no agreement to measure.")
        return
    columns = ("criterion", "who", "alpha", "units")
    console.print(table("agreement (Krippendorff's alpha), 95 % intervals", columns, rows))


def _row(item: panel_pb2.CriterionAgreement) -> tuple[str, ...]:
    return (item.criterion, item.expert_id or "the panel", _describe(item), str(item.units))


def _describe(item: panel_pb2.CriterionAgreement) -> str:
    if not item.HasField("alpha"):
        return "-"
    return f"{item.alpha:.2f}" + (f" ({item.low:.2f} to {item.high:.2f})" if item.HasField("low") else "")
