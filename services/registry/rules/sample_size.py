"""The differences that a number of rows can show, and how many rows would decide."""

import math
from statistics import NormalDist

from services.registry.domain import Evaluation, Interval

LOG_LIKELIHOOD, PAIR_MARGIN, WIN_RATE = "log_likelihood", "pair_margin", "win_rate"
# Metrics of ranked pairs.
PAIRED = (PAIR_MARGIN, WIN_RATE)
# Metrics that need no answers.
SCORED = {LOG_LIKELIHOOD, *PAIRED, "perplexity"}
# What lies beyond each end of a 95 % interval.
TAIL = 0.025
# Half the width of a 95 % interval in standard errors.
NORMAL = NormalDist().inv_cdf(1 - TAIL)
# A gain this much smaller than the half width cannot be decided with any number of rows that a company has.
MAX_FACTOR = 1000.0


def widen(gain: Interval, conditions: int) -> Interval:
    """The interval with which this many conditions together are wrong as seldom as one with a 95 % interval (Bonferroni; Dunn 1961)."""
    factor = NormalDist().inv_cdf(1 - TAIL / conditions) / NORMAL
    low, high = gain.value - factor * (gain.value - gain.low), gain.value + factor * (gain.high - gain.value)
    return Interval(gain.value, low, high, gain.rows)


def count_needed_rows(gain: Interval, limit: float) -> int | None:
    """The rows with which a gain of this size would be on one side of the limit; None if no number would do."""
    distance = gain.value - limit
    half = gain.value - gain.low if distance > 0 else gain.high - gain.value
    if not distance or not math.isfinite(half / distance) or (half / distance) ** 2 > MAX_FACTOR:
        return None
    return math.ceil(gain.rows * (half / distance) ** 2) + 1


def say_what_decides(evaluation: Evaluation, metric: str, gain: Interval, limit: float) -> str:
    """The difference that an undecided gain's rows cannot show, how many rows would decide, and how to get them."""
    if not math.isfinite(gain.high - gain.low):
        return f"{gain.rows} rows of one document show nothing; publish more documents"
    half = max(gain.value - gain.low, gain.high - gain.value)
    seen = f"with {gain.rows} rows a difference below {half:.3f} cannot be seen"
    needed = count_needed_rows(gain, limit)
    if needed is None:
        return f"{seen}, and this one is too small for any number of rows. Train a candidate that differs more, or change the limit"
    return f"{seen}; about {needed} rows would decide{_say_where(evaluation, metric, gain.rows, needed)}"


def _say_where(evaluation: Evaluation, metric: str, rows: int, needed: int) -> str:
    """Which setting gives the rows, or that the dataset does not have them."""
    held_out = _count_held_out(evaluation, metric)
    if needed > held_out:
        more = "Publish more documents; a higher `rows.held_out_percent` holds out more of the new ones"
        if metric in PAIRED:
            more = "Have experts rank more drafts, or raise `rows.held_out_percent`"
        return (
            f", but the dataset holds out {held_out}. "
            f"{more}. Raise `rows.max_held_out_rows` and `evaluation.max_rows` if they are lower"
        )
    # Metrics of scores are measured on every evaluated row, however few are answered.
    is_answered = metric.split(".", maxsplit=1)[0] not in SCORED
    setting = "evaluation.max_answers" if is_answered and rows < evaluation.rows else "evaluation.max_rows"
    return f", and the dataset holds out {held_out}. Raise `{setting}` with `tailor specialist update FILE`"


def _count_held_out(evaluation: Evaluation, metric: str) -> int:
    """The held-out rows that a metric can be measured on: pairs for those of pairs; for others the documents' rows, if there are any."""
    documents = evaluation.held_out_rows - evaluation.held_out_pairs
    return documents if documents and metric not in PAIRED else evaluation.held_out_pairs
