"""Rules of what drafts were worth: reports of callers, the share of a draft's words that was kept, and medians by generation and week."""

import math
import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from services.registry.domain import Draft
from services.registry.outcome_domain import BASELINE, DraftOutcome, FinalText
from tailor.errors import InvalidArgument, Reason

# 1 / 20 of the probability, 5 %, lies outside of an interval.
OUTSIDE = 20
# Beyond, the binomial distribution is treated as a normal one; the ranks then differ by at most one.
MAX_EXACT = 1_000
Group = tuple[datetime | None, int]
WORD = re.compile(r"\w+")
# Comparing takes the product of both lengths, divided by the bits of a machine word.
MAX_WORDS = 50_000
MAX_MINUTES = 100_000
MAX_REQUEST_ID = 128


def check_outcome(outcome: DraftOutcome, request_id: str) -> None:
    """Raises InvalidArgument (INVALID_OUTCOME) with a violation per wrong field."""
    violations: dict[str, str] = {}
    if not math.isfinite(outcome.minutes) or not 0 <= outcome.minutes <= MAX_MINUTES:
        violations["minutes"] = f"must be above 0 and at most {MAX_MINUTES:,}, or 0 for none"
    if not 0 <= outcome.satisfaction <= 5:
        violations["satisfaction"] = "must be 1 to 5, or 0 for none"
    if not violations and not outcome.minutes and not outcome.satisfaction:
        violations["minutes"] = "must be given if there is no satisfaction"
    if len(request_id) > MAX_REQUEST_ID:
        violations["request_id"] = f"must have at most {MAX_REQUEST_ID} characters"
    if not outcome.draft_id:
        if not request_id:
            violations["request_id"] = "must be given without a draft"
        if not outcome.specialist:
            violations["specialist"] = "must be given without a draft"
    _raise_if_any(violations)


def find_specialist_of(outcome: DraftOutcome, draft: Draft | None) -> str:
    """The specialist that an outcome counts for. Raises InvalidArgument (INVALID_OUTCOME) if it does not fit the draft's."""
    answered = draft.specialist if draft else ""
    if answered and outcome.specialist not in ("", answered):
        _raise_if_any({"specialist": "must be the one that wrote the draft, or left out"})
    if not answered and not outcome.specialist:
        _raise_if_any({"specialist": "must be given for a draft of the base"})
    return answered or outcome.specialist


def _raise_if_any(violations: dict[str, str]) -> None:
    if violations:
        raise InvalidArgument(Reason.INVALID_OUTCOME, "The outcome is invalid.", field_violations=violations)


def measure_edit_retention(draft: str, final: str) -> float | None:
    """The share of the draft's words that the final text has in the same order, from 0 to 1; None if the draft has no words.

    Case, punctuation and white space do not count. Words beyond the 50,000th of a text are not compared.
    """
    ours, theirs = _split(draft), _split(final)
    return _common_subsequence(ours, theirs) / len(ours) if ours else None


def _split(text: str) -> list[str]:
    return WORD.findall(text.casefold())[:MAX_WORDS]


def _common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """The length of the longest common subsequence, bit-parallel (Hyyrö 2004, Bit-Parallel LCS-length Computation Revisited)."""
    places: dict[str, int] = defaultdict(int)
    for place, word in enumerate(first):
        places[word] |= 1 << place
    all_bits = (1 << len(first)) - 1
    unmatched = all_bits
    for word in second:
        matches = unmatched & places.get(word, 0)
        unmatched = ((unmatched + matches) | (unmatched - matches)) & all_bits
    return len(first) - unmatched.bit_count()


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
    edit_retention: MedianEstimate
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
    """The median with its 95 % interval; without an interval for fewer than 6 values.

    The interval lies between two of the values in order, chosen by the binomial distribution: it holds for every distribution of the
    values, and needs no resampling (David and Nagaraja 2003, Order Statistics, 7.1).
    """
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
        edit_retention=estimate_median([item.share for item in written if item.share is not None]),
        satisfaction=estimate_median([item.satisfaction for item in reported if item.satisfaction]),
        deliverables=sum(bool(item.document_id) for item in written),
    )
