"""The sections of a specialist's monthly report: quality, outcomes, what was published, cost, and what changed and why."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import outcomes_pb2, registry_pb2, reports_pb2
from tailor.cli.bill import COLUMNS as BILL_COLUMNS
from tailor.cli.bill import describe_totals
from tailor.cli.columns import cells, headings
from tailor.cli.figures import decision_of, describe, describe_decision
from tailor.cli.markdown import list_table_lines, on_one_line
from tailor.cli.outcomes import COLUMNS as OUTCOME_COLUMNS
from tailor.cli.outcomes import WEEK_COLUMNS
from tailor.cli.output import short
from tailor.wire import to_datetime

TITLES = {"base": "base", "incumbent": "serving before", "candidate": "tuned"}


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


@dataclass(frozen=True)
class ReportSection:
    """A part of the report: sentences, then a table."""

    title: str
    sentences: Sequence[str]
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


def list_sections(figures: MonthFigures) -> list[ReportSection]:
    """All sections, in the order of the report."""
    return [
        _quality(figures),
        _outcomes(figures.outcomes),
        _published(figures),
        _cost(figures.ledger),
        _changes(figures),
    ]


def to_markdown(title: str, sections: Sequence[ReportSection]) -> str:
    """The report as Markdown."""
    lines = [f"# {title}"]
    for section in sections:
        lines += ["", f"## {section.title}", "", *(f"- {on_one_line(sentence)}" for sentence in section.sentences)]
        if section.rows:
            lines += ["", *list_table_lines(section.columns, section.rows)]
    return "\n".join(lines) + "\n"


def _quality(figures: MonthFigures) -> ReportSection:
    if not figures.adapters:
        return ReportSection("Quality", ["No adapter was evaluated in this month."])
    rows = [row for item in figures.adapters for row in _list_scores(item)]
    verdicts = [_describe_verdict(item) for item in figures.adapters]
    columns = ("adapter", "metric", *TITLES.values(), "gain over base")
    return ReportSection("Quality", verdicts, columns, rows)


def _describe_verdict(item: registry_pb2.CatalogueAdapter) -> str:
    held_out = (
        f"Adapter {short(item.adapter.digest)}, on {item.evaluation.rows} held-out rows: {decision_of(item.decision)}"
    )
    return f"{held_out}. {' '.join(item.reasons)}".strip()


def _list_scores(item: registry_pb2.CatalogueAdapter) -> Iterator[tuple[str, ...]]:
    for metric in item.evaluation.metrics:
        models = (describe(metric.models[name]) if name in metric.models else "-" for name in TITLES)
        gain = describe(metric.gains["base"], "+") if "base" in metric.gains else "-"
        yield short(item.adapter.digest), metric.metric, *models, gain


def _outcomes(answer: outcomes_pb2.GetOutcomesResponse) -> ReportSection:
    if not answer.generations:
        return ReportSection("Outcomes", ["No outcomes were reported."])
    sentences = ["Medians of the month with 95 % intervals, next to the whole baseline: work without a draft."]
    shown = cells(OUTCOME_COLUMNS, answer.generations)
    return ReportSection("Outcomes", sentences, headings(OUTCOME_COLUMNS), shown)


def _published(figures: MonthFigures) -> ReportSection:
    """The weeks that have a day in the month."""
    weeks = [
        week
        for week in figures.outcomes.documents
        if figures.start - timedelta(days=7) < to_datetime(week.week) < figures.end
    ]
    if not weeks:
        return ReportSection("Published", ["Nothing was published in the weeks of this month."])
    sentences = ["Documents that passed the barrier, by the Monday (UTC) of their week."]
    return ReportSection("Published", sentences, headings(WEEK_COLUMNS), cells(WEEK_COLUMNS, weeks))


def _cost(ledger: reports_pb2.GetLedgerResponse) -> ReportSection:
    if not ledger.lines:
        return ReportSection("Cost", ["Nothing was used.", *describe_totals(ledger)])
    return ReportSection("Cost", describe_totals(ledger), headings(BILL_COLUMNS), cells(BILL_COLUMNS, ledger.lines))


def _changes(figures: MonthFigures) -> ReportSection:
    rows = []
    for place, serving in enumerate(figures.generations):
        moment = to_datetime(serving.create_time)
        if figures.has(moment):
            change = _describe_change(serving, figures.generations[place + 1 :])
            adapter = short(serving.adapter_digest) if serving.adapter_digest else "the base"
            rows.append(
                (f"{moment:%Y-%m-%d %H:%M}", str(serving.generation), change, adapter, _explain(serving, figures))
            )
    by_people = [describe_decision(item) for item in figures.decisions if figures.has(to_datetime(item.create_time))]
    if not rows and not by_people:
        return ReportSection("Changes", ["What serves did not change in this month."])
    return ReportSection("Changes", by_people, ("time (UTC)", "generation", "change", "serves", "why"), rows)


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
