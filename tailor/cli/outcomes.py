"""Words of callers about a specialist's drafts: feedback, and outcomes, which say what drafts were worth."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any

import typer

from tailor.api.registry.v1 import feedback_pb2, outcomes_pb2
from tailor.cli import ids
from tailor.cli.calls import CALLERS_SERVICE, adapter_digest, calling
from tailor.cli.options import SpecialistName
from tailor.cli.session import CommandSession
from tailor.cli.tables import emit_list, item_table
from tailor.columns import columns
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
    with session.connections.client() as client, calling("inference", f"{CALLERS_SERVICE}/ReportOutcome"):
        receipt = client.report_outcome(
            draft, specialist=specialist, minutes=minutes, satisfaction=satisfaction, request_id=request_id
        )
    counted = f"generation {receipt.generation}" if receipt.generation else "the baseline"
    document = {**asdict(receipt), "create_time": receipt.create_time.isoformat()}
    session.output.emit(document, f"Recorded for {counted} of {receipt.specialist}.")


def outcomes(
    session: CommandSession,
    specialist: SpecialistName,
    weeks: Annotated[int, typer.Option(min=1, max=MAX_WEEKS, help="Weeks to list, the current one included.")] = 12,
) -> None:
    """Show what a specialist's drafts were worth, by generation and by week, next to the baseline.

    Medians with 95 % intervals: minutes to the deliverable, share of the draft kept, satisfaction from 1 to 5."""
    request = outcomes_pb2.GetOutcomesRequest(specialist=specialist, weeks=weeks)
    answer = session.connections.outcomes.GetOutcomes(request, timeout=COMPUTE_SECONDS)
    session.output.emit(answer, _describe(answer))


def _describe(answer: outcomes_pb2.GetOutcomesResponse) -> Iterator[Any]:
    if not answer.generations:
        yield "No outcomes yet. Callers report them by `ReportOutcome`; docs/call.md shows how."
    else:
        yield item_table("medians by generation, 95 % intervals", COLUMNS, answer.generations)
        yield item_table("by week", columns(None, *_WEEK, *COLUMNS), answer.weeks)
    yield item_table("published", WEEK_COLUMNS, answer.documents)


def describe_median(estimate: outcomes_pb2.MedianEstimate, style: str) -> str:
    """A median with its interval and the number of values, or a dash without any."""
    if not estimate.HasField("median"):
        return "-"
    interval = f" ({estimate.low:{style}} to {estimate.high:{style}})" if estimate.HasField("low") else ""
    return f"{estimate.median:{style}}{interval}, n = {estimate.count}"


_WEEK = columns(None, ("week of", lambda item: f"{to_datetime(item.week):%Y-%m-%d}"))
WEEK_COLUMNS = columns(outcomes_pb2.WeekOfDocuments, *_WEEK, "documents, knowledge articles, deliverables")
COLUMNS = columns(
    outcomes_pb2.OutcomeFigures,
    "generation=generation or 'baseline', adapter=adapter_digest",
    ("minutes", lambda item: describe_median(item.minutes, ".0f")),
    ("kept", lambda item: describe_median(item.edit_retention, ".0%")),
    ("satisfaction", lambda item: describe_median(item.satisfaction, ".1f")),
    "deliverables",
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
    answer = session.connections.feedback.ListFeedback(request)
    empty = "No feedback yet. Callers give it by `RecordFeedback`; docs/call.md shows how."
    remarks = [_describe_totals(answer.totals)]
    emit_list(session, answer.feedback, FEEDBACK, document=answer, empty=empty, remarks=remarks)


def _describe_totals(totals: feedback_pb2.FeedbackTotals) -> str:
    counts = f"{totals.accepted} accepted, {totals.edited} edited, {totals.rejected} rejected"
    return f"{counts}; {totals.mean_stars:.2f} of 5 stars from {totals.rated}" if totals.rated else counts


FEEDBACK = columns(
    feedback_pb2.Feedback,
    "draft=draft_id, adapter=adapter_digest, verdict, stars=stars or '-'",
    ("edited text", lambda item: f"{len(item.edited_text):,} characters" if item.edited_text else "-"),
    "comment, time=create_time",
)
