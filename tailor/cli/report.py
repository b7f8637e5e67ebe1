"""`tailor specialist report`: the monthly report for the people who fund a specialist."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from tailor.api.registry.v1 import outcomes_pb2, registry_pb2, reports_pb2
from tailor.cli.adapters import SpecialistName
from tailor.cli.bill import COMPUTE_SECONDS, Month
from tailor.cli.calls import list_adapters, pages, unary
from tailor.cli.connections import Connections
from tailor.cli.month_sections import MonthFigures, list_sections, to_markdown
from tailor.cli.outcomes import MAX_WEEKS
from tailor.cli.output import shows
from tailor.cli.session import CommandSession
from tailor.errors import InvalidArgument, Reason
from tailor.wire import to_datetime

PAGE = 200


def report(
    session: CommandSession,
    specialist: SpecialistName,
    month: Month = "",
    output: Annotated[Path, typer.Option("--out", file_okay=False, help="Folder to write to.")] = Path(),
) -> None:
    """Write the report of a specialist's month as Markdown: quality, outcomes, cost, and what changed and why."""
    figures = read_month(session.connections, specialist, month)
    title = f"{specialist} in {figures.month}"
    path = output / f"{specialist}-{figures.month}.md"
    try:
        output.mkdir(parents=True, exist_ok=True)
        path.write_text(to_markdown(title, list_sections(figures)), encoding="utf-8")
    except OSError as error:
        raise InvalidArgument(
            Reason.CANNOT_WRITE, f"The report cannot be written to {output}: {error.strerror}. Choose another --out."
        ) from None
    session.output.emit({"specialist": specialist, "month": figures.month, "files": [str(path)]}, shows(str(path)))


def read_month(connections: Connections, specialist: str, month: str) -> MonthFigures:
    """All figures of a month. Calls the registry several times."""
    request = reports_pb2.GetLedgerRequest(specialist=specialist, month=month)
    ledger = unary("registry", connections.reports.GetLedger, request, COMPUTE_SECONDS)
    start = to_datetime(ledger.start_time)
    end = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    weeks = min(max((datetime.now(UTC) - start).days // 7 + 2, 1), MAX_WEEKS)
    asked = outcomes_pb2.GetOutcomesRequest(specialist=specialist, month=ledger.month, weeks=weeks)
    generations = reports_pb2.ListGenerationsRequest(specialist=specialist, page_size=PAGE)
    decisions = registry_pb2.ListDecisionsRequest(specialist=specialist, page_size=PAGE)
    return MonthFigures(
        specialist=specialist,
        month=ledger.month,
        start=start,
        end=end,
        adapters=_list_evaluated(connections, specialist, start, end),
        outcomes=unary("registry", connections.outcomes.GetOutcomes, asked, COMPUTE_SECONDS),
        ledger=ledger,
        generations=list(pages("registry", connections.reports.ListGenerations, generations, "generations")),
        decisions=list(pages("registry", connections.registry.ListDecisions, decisions, "decisions")),
    )


def _list_evaluated(
    connections: Connections, specialist: str, start: datetime, end: datetime
) -> list[registry_pb2.CatalogueAdapter]:
    """Adapters whose newest evaluation is of the month, newest first."""
    return [
        item
        for item in list_adapters(connections.registry, specialist)
        if item.HasField("evaluation") and start <= to_datetime(item.evaluation.create_time) < end
    ]
