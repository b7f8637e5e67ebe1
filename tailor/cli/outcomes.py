"""Words of callers about a specialist's drafts: feedback, and outcomes, which say what drafts were worth."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from tailor.api.inference.v1 import inference_pb2
from tailor.api.registry.v1 import feedback_pb2, outcomes_pb2
from tailor.cli import ids
from tailor.cli.adapters import SpecialistName
from tailor.cli.calls import adapter_digest, calling, unary
from tailor.cli.columns import ShownField, columns, emit_list, item_table
from tailor.cli.messages import to_dict
from tailor.cli.session import CommandSession
from tailor.client import OutcomeReceipt
from tailor.wire import to_datetime

MAX_WEEKS = 104
MAX_PAGE = 200
COMPUTE_SECONDS = 60.0


def report_outcome(
    session: CommandSession,
    draft: Annotated[
        str,
        typer.Argument(
            metavar="[DRAFT]",
            help="The draft's id, or at least its first 6 digits; none for work without Tailor.",
            callback=ids.draft_id,
        ),
    ] = "",
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


def outcomes(
    session: CommandSession,
    specialist: SpecialistName,
    weeks: Annotated[int, typer.Option(min=1, max=MAX_WEEKS, help="Weeks to list, the current one included.")] = 12,
) -> None:
    """Show what a specialist's drafts were worth, by generation and by week, next to the baseline.

    Medians with 95 % intervals: minutes to the deliverable, share of the draft kept, satisfaction from 1 to 5."""
    request = outcomes_pb2.GetOutcomesRequest(specialist=specialist, weeks=weeks)
    answer = unary("registry", session.connections.outcomes.GetOutcomes, request, COMPUTE_SECONDS)
    session.output.emit(to_dict(answer), lambda console: _print(console, answer))


def _print(console: Console, answer: outcomes_pb2.GetOutcomesResponse) -> None:
    if not answer.generations:
        console.print("No outcomes yet. Callers report them by `ReportOutcome`; docs/call.md shows how.")
    else:
        console.print(item_table("medians by generation, 95 % intervals", COLUMNS, answer.generations))
        console.print(item_table("by week", (_WEEK, *COLUMNS), answer.weeks))
    console.print(item_table("published", WEEK_COLUMNS, answer.documents))


def describe_median(estimate: outcomes_pb2.MedianEstimate, style: str) -> str:
    """A median with its interval and the number of values, or a dash without any."""
    if not estimate.HasField("median"):
        return "-"
    interval = f" ({estimate.low:{style}} to {estimate.high:{style}})" if estimate.HasField("low") else ""
    return f"{estimate.median:{style}}{interval}, n = {estimate.count}"


def _median(name: str, field: str, style: str) -> ShownField:
    return ShownField(name, lambda item: describe_median(getattr(item, field), style))


_WEEK = ShownField("week of", lambda item: f"{to_datetime(item.week):%Y-%m-%d}")
WEEK_COLUMNS = (_WEEK, *columns("documents", "knowledge articles", "deliverables"))
COLUMNS = (
    *columns(("generation", lambda item: item.generation or "baseline"), "adapter=adapter_digest"),
    _median("minutes", "minutes", ".0f"),
    _median("kept", "edit_retention", ".0%"),
    _median("satisfaction", "satisfaction", ".1f"),
    *columns("deliverables"),
)


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
        FEEDBACK,
        document=to_dict(answer),
        empty="No feedback yet. Callers give it by `RecordFeedback`; docs/call.md shows how.",
        remarks=lambda console: console.print(_describe_totals(answer.totals), highlight=False),
    )


def _describe_totals(totals: feedback_pb2.FeedbackTotals) -> str:
    counts = f"{totals.accepted} accepted, {totals.edited} edited, {totals.rejected} rejected"
    return f"{counts}; {totals.mean_stars:.2f} of 5 stars from {totals.rated}" if totals.rated else counts


FEEDBACK = columns(
    "draft=draft_id",
    "adapter=adapter_digest",
    "verdict",
    ("stars", lambda item: item.stars or "-"),
    ("edited text", lambda item: f"{len(item.edited_text):,} characters" if item.edited_text else "-"),
    "comment",
    "time=create_time",
)
