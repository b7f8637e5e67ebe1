"""`tailor specialist feedback`: what callers said of a specialist's drafts."""

from typing import Annotated

import typer

from tailor.api.registry.v1 import feedback_pb2
from tailor.cli.adapters import SpecialistName
from tailor.cli.calls import adapter_digest, unary
from tailor.cli.columns import columns, emit_list
from tailor.cli.messages import to_dict
from tailor.cli.session import CommandSession

MAX_PAGE = 200


def feedback(
    session: CommandSession,
    specialist: SpecialistName,
    adapter: Annotated[str, typer.Option(metavar="DIGEST", help="Only on drafts of this adapter.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=MAX_PAGE, help="Max entries to list; the totals count all.")] = 20,
) -> None:
    """Show what became of a specialist's drafts: accepted, edited or rejected, with stars and comments, newest first."""
    digest = adapter_digest(session.connections.registry, adapter) if adapter else ""
    request = feedback_pb2.ListFeedbackRequest(specialist=specialist, adapter_digest=digest, page_size=limit)
    answer = unary("registry", session.connections.feedback.ListFeedback, request)
    emit_list(
        session,
        answer.feedback,
        COLUMNS,
        document=to_dict(answer),
        empty="No feedback yet. Callers give it by `RecordFeedback`; docs/call.md shows how.",
        remarks=lambda console: console.print(_describe(answer.totals), highlight=False),
    )


def _describe(totals: feedback_pb2.FeedbackTotals) -> str:
    counts = f"{totals.accepted} accepted, {totals.edited} edited, {totals.rejected} rejected"
    return f"{counts}; {totals.mean_stars:.2f} of 5 stars from {totals.rated}" if totals.rated else counts


COLUMNS = columns(
    "draft=draft_id",
    "adapter=adapter_digest",
    "verdict",
    ("stars", lambda item: item.stars or "-"),
    ("edited text", lambda item: f"{len(item.edited_text):,} characters" if item.edited_text else "-"),
    "comment",
    "time=create_time",
)
