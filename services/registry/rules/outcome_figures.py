"""Medians of what drafts were worth, by generation and by week, with 95 % intervals.

An interval of a median lies between two of the values in order, chosen by the binomial distribution: it holds for every distribution of the
values, and needs no resampling (David and Nagaraja 2003, Order Statistics, 7.1).
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from services.registry.outcome_domain import BASELINE, DraftOutcome, FinalText

# 1 / 20 of the probability, 5 %, lies outside of an interval.
OUTSIDE = 20
# Beyond, the binomial distribution is treated as a normal one; the ranks then differ by at most one.
MAX_EXACT = 1_000
Group = tuple[datetime | None, int]


@dataclass(frozen=True)
class MedianEstimate:
    """The median of `count` values with its 95 % interval; None if there are too few values."""

    count: int
    median: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class OutcomeFigures:
    """Figures of a generation, in the week that begins on a Monday in UTC, or in all weeks if it is None."""

    generation: int
    adapter_digest: str
    week: datetime | None
    minutes: MedianEstimate
    kept_share: MedianEstimate
    satisfaction: MedianEstimate
    deliverables: int


def summarize_by_generation(outcomes: Sequence[DraftOutcome], finals: Sequence[FinalText]) -> list[OutcomeFigures]:
    """Figures of each generation over all weeks, the newest first; the baseline is the last."""
    return _summarize(outcomes, finals, lambda item: (None, item.generation))


def summarize_by_week(outcomes: Sequence[DraftOutcome], finals: Sequence[FinalText]) -> list[OutcomeFigures]:
    """Figures of each week and generation, the newest week first, and within it the newest generation."""
    return _summarize(outcomes, finals, lambda item: (week_of(item.create_time), item.generation))


def week_of(moment: datetime) -> datetime:
    """The Monday, 0:00 UTC, on which a moment's week begins."""
    day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return day - timedelta(days=day.weekday())


def estimate_median(values: Sequence[float]) -> MedianEstimate:
    """The median with its 95 % interval; without an interval for fewer than 6 values."""
    if not values:
        return MedianEstimate(0)
    ordered = sorted(values)
    median = float(statistics.median(ordered))
    rank = _find_rank(len(ordered))
    if not rank:
        return MedianEstimate(len(ordered), median)
    return MedianEstimate(len(ordered), median, float(ordered[rank - 1]), float(ordered[-rank]))


def _find_rank(count: int) -> int:
    """The greatest rank r with P(X < r) at most 2.5 %, X binomial of `count` tosses; 0 if there is none."""
    if count > MAX_EXACT:
        deviations = statistics.NormalDist().inv_cdf(1 - 1 / (2 * OUTSIDE))
        return int((count + 1 - deviations * math.sqrt(count)) / 2)
    rank, below, ways = 0, 0, 1
    while 2 * OUTSIDE * (below + ways) <= 1 << count:
        below += ways
        ways = ways * (count - rank) // (rank + 1)
        rank += 1
    return rank


def _summarize(
    outcomes: Sequence[DraftOutcome],
    finals: Sequence[FinalText],
    group_of: Callable[[DraftOutcome | FinalText], Group],
) -> list[OutcomeFigures]:
    reported: dict[Group, list[DraftOutcome]] = defaultdict(list)
    written: dict[Group, list[FinalText]] = defaultdict(list)
    for outcome in outcomes:
        reported[group_of(outcome)].append(outcome)
    for final in finals:
        written[group_of(final)].append(final)
    groups = sorted({*reported, *written}, key=lambda group: (group[0] is not None and group[0].timestamp(), group[1]))
    return [_describe(group, reported[group], written[group]) for group in reversed(groups)]


def _describe(group: Group, reported: Sequence[DraftOutcome], written: Sequence[FinalText]) -> OutcomeFigures:
    week, generation = group
    digests = [*(item.adapter_digest for item in reported), *(item.adapter_digest for item in written)]
    return OutcomeFigures(
        generation=generation,
        adapter_digest=digests[0] if generation != BASELINE else "",
        week=week,
        minutes=estimate_median([item.minutes for item in reported if item.minutes]),
        kept_share=estimate_median([item.share for item in written if item.share is not None]),
        satisfaction=estimate_median([item.satisfaction for item in reported if item.satisfaction]),
        deliverables=sum(bool(item.document_id) for item in written),
    )
