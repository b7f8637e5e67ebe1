"""`tailor feedback`: what callers said of a specialist's drafts."""

from typing import Annotated

import typer
from rich.console import Console

from tailor.api.common.v1 import common_pb2
from tailor.api.registry.v1 import feedback_pb2
from tailor.cli.adapters import SpecialistName
from tailor.cli.calls import adapter_digest, unary
from tailor.cli.messages import short_enum, to_dict
from tailor.cli.output import short, table
from tailor.cli.session import session_of
from tailor.wire import to_datetime

MAX_PAGE = 200

app = typer.Typer()


@app.command()
def feedback(
    context: typer.Context,
    specialist: SpecialistName,
    adapter: Annotated[str, typer.Option(metavar="DIGEST", help="Only on drafts of this adapter.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=MAX_PAGE, help="Max entries to list; the totals count all.")] = 20,
) -> None:
    """Show what became of a specialist's drafts: accepted, edited or rejected, with stars and comments, newest first."""
    session = session_of(context)
    digest = adapter_digest(session.connections.registry, adapter) if adapter else ""
    request = feedback_pb2.ListFeedbackRequest(specialist=specialist, adapter_digest=digest, page_size=limit)
    answer = unary("registry", session.connections.feedback.ListFeedback, request)
    session.output.emit(to_dict(answer), lambda console: _print(console, answer))


def _print(console: Console, answer: feedback_pb2.ListFeedbackResponse) -> None:
    if not answer.feedback:
        console.print("No feedback yet. Callers give it by `RecordFeedback`; docs/call.md shows how.")
        return
    console.print(_describe(answer.totals), highlight=False)
    columns = ("draft", "adapter", "verdict", "stars", "edited text", "comment", "time")
    console.print(table("newest feedback", columns, [_row(item) for item in answer.feedback]))


def _describe(totals: feedback_pb2.FeedbackTotals) -> str:
    counts = f"{totals.accepted} accepted, {totals.edited} edited, {totals.rejected} rejected"
    return f"{counts}; {totals.mean_stars:.2f} of 5 stars from {totals.rated}" if totals.rated else counts


def _row(item: feedback_pb2.Feedback) -> tuple[str, ...]:
    return (
        item.draft_id,
        short(item.adapter_digest),
        short_enum(common_pb2.FeedbackVerdict, item.verdict, "FEEDBACK_VERDICT_"),
        str(item.stars or "-"),
        f"{len(item.edited_text):,} characters" if item.edited_text else "-",
        item.comment,
        f"{to_datetime(item.create_time):%Y-%m-%d %H:%M}",
    )
