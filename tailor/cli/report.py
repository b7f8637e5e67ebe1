"""`tailor specialist report`: the monthly report for the people who fund a specialist."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import outcomes_pb2, registry_pb2, reports_pb2
from tailor.cli.bill import COLUMNS as BILL_COLUMNS
from tailor.cli.bill import COMPUTE_SECONDS, describe_totals
from tailor.cli.calls import list_adapters, pages
from tailor.cli.connections import Connections
from tailor.cli.figures import decision_of, describe_decision, estimates
from tailor.cli.options import Month, SpecialistName
from tailor.cli.outcomes import COLUMNS as OUTCOME_COLUMNS
from tailor.cli.outcomes import MAX_WEEKS, WEEK_COLUMNS
from tailor.cli.output import short
from tailor.cli.session import CommandSession
from tailor.cli.tables import TableSection
from tailor.columns import Digest, columns
from tailor.errors import InvalidArgument, Reason
from tailor.list_columns import describe_estimate
from tailor.wire import to_datetime

PAGE = 200


@dataclass(frozen=True)
class MonthFigures:
    """What the registry says of a specialist's month. `adapters` are those that were evaluated in it, `generations` all of them."""

    specialist: str
    month: str
    start: datetime
    end: datetime
    adapters: Sequence[registry_pb2.CatalogueAdapter]
    outcomes: outcomes_pb2.GetOutcomesResponse
    ledger: reports_pb2.GetLedgerResponse
    generations: Sequence[models_pb2.SpecialistServing]
    decisions: Sequence[registry_pb2.OperatorDecision]

    def has(self, moment: datetime) -> bool:
        """True if the moment is in the month."""
        return self.start <= moment < self.end


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
        path.write_text(to_markdown(title, figures), encoding="utf-8")
    except OSError as error:
        raise InvalidArgument(
            Reason.CANNOT_WRITE, f"The report cannot be written to {output}: {error.strerror}. Choose another --out."
        ) from None
    session.output.emit({"specialist": specialist, "month": figures.month, "files": [str(path)]}, str(path))


def read_month(connections: Connections, specialist: str, month: str) -> MonthFigures:
    """All figures of a month. Calls the registry several times."""
    request = reports_pb2.GetLedgerRequest(specialist=specialist, month=month)
    ledger = connections.reports.GetLedger(request, timeout=COMPUTE_SECONDS)
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
        outcomes=connections.outcomes.GetOutcomes(asked, timeout=COMPUTE_SECONDS),
        ledger=ledger,
        generations=list(pages(connections.reports.ListGenerations, generations)),
        decisions=list(pages(connections.registry.ListDecisions, decisions)),
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


TITLES = {"base": "base", "incumbent": "serving before", "candidate": "tuned"}


def to_markdown(title: str, figures: MonthFigures) -> str:
    """The report as Markdown."""
    sections = (
        _quality(figures),
        _outcomes(figures.outcomes),
        _published(figures),
        _cost(figures.ledger),
        _changes(figures),
    )
    return "\n".join((f"# {title}", *(line for section in sections for line in section.to_markdown()))) + "\n"


SCORES = columns(
    None,
    ("adapter", lambda row: Digest(row[0])),
    ("metric", lambda row: row[1].metric),
    *((title, lambda row, name=name: estimates("", name, "-")[1](row[1])) for name, title in TITLES.items()),
    ("gain over base", lambda row: describe_estimate(row[1].gains["base"], "+") if "base" in row[1].gains else "-"),
)


def _quality(figures: MonthFigures) -> TableSection:
    if not figures.adapters:
        return TableSection("Quality", sentences=["No adapter was evaluated in this month."])
    rows = [(item.adapter.digest, metric) for item in figures.adapters for metric in item.evaluation.metrics]
    return TableSection("Quality", SCORES, rows, [_describe_verdict(item) for item in figures.adapters])


def _describe_verdict(item: registry_pb2.CatalogueAdapter) -> str:
    held_out = f"on {item.evaluation.rows} held-out rows: {decision_of(item.decision)}"
    return f"Adapter {short(item.adapter.digest)}, {held_out}. {' '.join(item.reasons)}".strip()


def _outcomes(answer: outcomes_pb2.GetOutcomesResponse) -> TableSection:
    if not answer.generations:
        return TableSection("Outcomes", sentences=["No outcomes were reported."])
    sentences = ["Medians of the month with 95 % intervals, next to the whole baseline: work without a draft."]
    return TableSection("Outcomes", OUTCOME_COLUMNS, answer.generations, sentences)


def _published(figures: MonthFigures) -> TableSection:
    """The weeks that have a day in the month."""
    first = figures.start - timedelta(days=7)
    weeks = [week for week in figures.outcomes.documents if first < to_datetime(week.week) < figures.end]
    if not weeks:
        return TableSection("Published", sentences=["Nothing was published in the weeks of this month."])
    sentences = ["Documents that passed the barrier, by the Monday (UTC) of their week."]
    return TableSection("Published", WEEK_COLUMNS, weeks, sentences)


def _cost(ledger: reports_pb2.GetLedgerResponse) -> TableSection:
    nothing = [] if ledger.lines else ["Nothing was used."]
    return TableSection("Cost", BILL_COLUMNS, ledger.lines, [*nothing, *describe_totals(ledger)])


def _changes(figures: MonthFigures) -> TableSection:
    shown = columns(
        None,
        ("time (UTC)", lambda row: f"{to_datetime(row[0].create_time):%Y-%m-%d %H:%M}"),
        ("generation", lambda row: row[0].generation),
        ("change", lambda row: _describe_change(*row)),
        ("serves", lambda row: Digest(row[0].adapter_digest) if row[0].adapter_digest else "the base"),
        ("why", lambda row: _explain(row[0], figures)),
    )
    rows = [
        (serving, figures.generations[place + 1 :])
        for place, serving in enumerate(figures.generations)
        if figures.has(to_datetime(serving.create_time))
    ]
    by_people = [describe_decision(item) for item in figures.decisions if figures.has(to_datetime(item.create_time))]
    unchanged = [] if rows or by_people else ["What serves did not change in this month."]
    return TableSection("Changes", shown, rows, by_people or unchanged)


def _describe_change(serving: models_pb2.SpecialistServing, earlier: Sequence[models_pb2.SpecialistServing]) -> str:
    before = earlier[0].adapter_digest if earlier else ""
    if serving.ended:
        return "deleted"
    if serving.HasField("canary"):
        return f"canary of {short(serving.canary.adapter_digest)} for {serving.canary.percent} % of the callers"
    if serving.adapter_digest == before:
        return "canary ended" if earlier and earlier[0].HasField("canary") else "no other adapter"
    if not serving.adapter_digest or serving.adapter_digest in {item.adapter_digest for item in earlier}:
        return "rollback"
    return "promotion"


def _explain(serving: models_pb2.SpecialistServing, figures: MonthFigures) -> str:
    decided = [item for item in figures.decisions if item.generation == serving.generation]
    if decided:
        return describe_decision(decided[0])
    if serving.overridden:
        return "an operator's override"
    tried = serving.canary.adapter_digest or serving.adapter_digest
    reasons = [" ".join(item.reasons) for item in figures.adapters if item.adapter.digest == tried]
    return reasons[0] if reasons and reasons[0] else "-"
