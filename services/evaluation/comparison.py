"""Compares two evaluated models row by row, on the held-out rows that both were measured on."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from services.evaluation.domain import Estimate, HeldOutRow
from services.evaluation.measurement import mean_of
from services.evaluation.statistics import estimate, find_clusters
from tailor.errors import FailedPrecondition, InvalidArgument, Reason


@dataclass(frozen=True)
class ReportedRow:
    """A row of a report with one model's answer, and its values by metric."""

    row: HeldOutRow
    answer: str | None
    values: Mapping[str, float]


@dataclass(frozen=True)
class ReportedModel:
    """One model of a report. `lower_is_better` has an entry for each metric of the report."""

    rows: tuple[ReportedRow, ...]
    lower_is_better: Mapping[str, bool]


@dataclass(frozen=True)
class RowPair:
    """A row that both models were measured on. Positive gains mean that the second model is better."""

    row: HeldOutRow
    first_answer: str | None
    second_answer: str | None
    first_value: float
    second_value: float
    gain: float


@dataclass(frozen=True)
class Group:
    """Rows of one task or one language, or all rows if both are empty."""

    task: str
    language: str
    rows: int
    first: Estimate
    second: Estimate
    gain: Estimate


@dataclass(frozen=True)
class Comparison:
    """Groups over all rows, and the wanted rows, those that differ most first."""

    metric: str
    lower_is_better: bool
    metrics: tuple[str, ...]
    groups: tuple[Group, ...]
    rows: tuple[RowPair, ...]
    only_first: int
    only_second: int


def compare(
    first: ReportedModel, second: ReportedModel, metric: str = "", task: str = "", language: str = ""
) -> Comparison:
    """Compare by a metric, or by the first one that both models have values of.

    Raises FailedPrecondition (NOT_COMPARABLE) without a common row, InvalidArgument for a metric without common values."""
    by_id = {row.row.row_id: row for row in second.rows}
    common = [(row, by_id[row.row.row_id]) for row in first.rows if row.row.row_id in by_id]
    metrics = tuple(name for name in first.lower_is_better if any(_has_both(pair, name) for pair in common))
    if not metrics:
        raise FailedPrecondition(
            Reason.NOT_COMPARABLE,
            "No held-out row was measured for both. Compare adapters of the same dataset, or evaluate one of them again.",
        )
    if metric and metric not in metrics:
        raise InvalidArgument(
            Reason.INVALID_REQUEST,
            "The metric has no values of rows in both evaluations.",
            field_violations={"metric": f"must be one of {', '.join(metrics)}"},
        )
    metric = metric or metrics[0]
    lower_is_better = first.lower_is_better[metric]
    pairs = [_pair(*pair, metric, lower_is_better) for pair in common if _has_both(pair, metric)]
    wanted = [pair for pair in pairs if task in ("", pair.row.task) and language in ("", pair.row.language)]
    return Comparison(
        metric=metric,
        lower_is_better=lower_is_better,
        metrics=metrics,
        groups=tuple(_group(pairs)),
        rows=tuple(sorted(wanted, key=lambda pair: (-abs(pair.gain), pair.row.row_id))),
        only_first=len(first.rows) - len(common),
        only_second=len(second.rows) - len(common),
    )


def _has_both(pair: tuple[ReportedRow, ReportedRow], metric: str) -> bool:
    return all(metric in row.values for row in pair)


def _pair(first: ReportedRow, second: ReportedRow, metric: str, lower_is_better: bool) -> RowPair:
    ours, theirs = first.values[metric], second.values[metric]
    gain = ours - theirs if lower_is_better else theirs - ours
    return RowPair(first.row, first.answer, second.answer, ours, theirs, gain)


def _group(pairs: Sequence[RowPair]) -> Iterator[Group]:
    """All rows, then each task, then each language."""
    yield _measure(pairs)
    for task in _distinct(pair.row.task for pair in pairs):
        yield _measure([pair for pair in pairs if pair.row.task == task], task=task)
    for language in _distinct(pair.row.language for pair in pairs if pair.row.language):
        yield _measure([pair for pair in pairs if pair.row.language == language], language=language)


def _measure(pairs: Sequence[RowPair], task: str = "", language: str = "") -> Group:
    clusters = find_clusters([pair.row for pair in pairs])
    return Group(
        task=task,
        language=language,
        rows=len(pairs),
        first=estimate(mean_of(pair.first_value for pair in pairs), clusters),
        second=estimate(mean_of(pair.second_value for pair in pairs), clusters),
        gain=estimate(mean_of(pair.gain for pair in pairs), clusters),
    )


def _distinct(values: Iterable[str]) -> list[str]:
    return sorted(set(values))
