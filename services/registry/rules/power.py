"""The differences that a number of rows can show, and how many rows would decide."""

import math
from dataclasses import dataclass
from statistics import NormalDist

from services.registry.domain import Evaluation, Interval, Specialist

LOG_LIKELIHOOD, WIN_RATE = "log_likelihood", "win_rate"
# Metrics that need no answers.
SCORED = {LOG_LIKELIHOOD, WIN_RATE, "perplexity"}
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


def say_what_decides(evaluation: Evaluation, gain: Interval, limit: float) -> str:
    """The difference that an undecided gain's rows cannot show, how many rows would decide, and how to get them."""
    if not math.isfinite(gain.high - gain.low):
        return f"{gain.rows} rows of one document show nothing; publish more documents"
    half = max(gain.value - gain.low, gain.high - gain.value)
    seen = f"with {gain.rows} rows a difference below {half:.3f} cannot be seen"
    needed = count_needed_rows(gain, limit)
    if needed is None:
        return f"{seen}, and this one is too small for any number of rows. Train a candidate that differs more, or change the limit"
    return f"{seen}; about {needed} rows would decide{_say_where(evaluation, gain.rows, needed)}"


def _say_where(evaluation: Evaluation, rows: int, needed: int) -> str:
    """Which setting gives the rows, or that the dataset does not have them."""
    if needed > evaluation.held_out_rows:
        return (
            f", but the dataset holds out {evaluation.held_out_rows}. "
            "Publish more documents, or raise `rows.held_out_percent` and `evaluation.max_rows`"
        )
    setting = "evaluation.max_answers" if rows < evaluation.rows else "evaluation.max_rows"
    return f", and the dataset holds out {evaluation.held_out_rows}. Raise `{setting}` with `tailor specialist update`"


@dataclass(frozen=True)
class EvaluationPlan:
    """The power of an evaluation: differences below `visible_difference` cannot be seen with `rows` rows.

    The difference is in the metric's unit, from the spread of an evaluation on `spread_rows` rows; without one, in standard deviations."""

    metric: str
    rows: int
    held_out_rows: int
    visible_difference: float
    spread_rows: int
    sentence: str


def plan_evaluation(specialist: Specialist, documents: int, pairs: int, newest: Evaluation | None) -> EvaluationPlan:
    """The plan for a run on datasets with these held-out rows of documents and held-out pairs."""
    metric = specialist.gate.primary.metric or (WIN_RATE if pairs else LOG_LIKELIHOOD)
    held_out = pairs if metric == WIN_RATE or not documents else documents
    limits = [specialist.evaluation.max_rows]
    if metric not in SCORED and specialist.evaluation.max_answers:
        limits.append(specialist.evaluation.max_answers)
    rows = min(held_out, *limits)
    spread = _find_spread(metric, newest)
    visible = math.inf
    if rows:
        visible = spread[0] * math.sqrt(spread[1] / rows) if spread else NORMAL / math.sqrt(rows)
    sentence = _say_plan(metric, rows, held_out, visible, spread)
    return EvaluationPlan(metric, rows, held_out, visible, spread[1] if spread else 0, sentence)


def _find_spread(metric: str, newest: Evaluation | None) -> tuple[float, int] | None:
    """Half the width of the newest gain's interval over the incumbent or else the base, and its rows."""
    gains = newest.metrics[metric].gains if newest and metric in newest.metrics else {}
    gain = gains.get("incumbent") or gains.get("base")
    if gain is None or not gain.rows or not math.isfinite(gain.high - gain.low):
        return None
    return (gain.high - gain.low) / 2, gain.rows


def _say_plan(metric: str, rows: int, held_out: int, visible: float, spread: tuple[float, int] | None) -> str:
    if not rows:
        return f"no rows are held out for {metric}, so the gate will refuse. Publish more documents, or raise `rows.held_out_percent`"
    unit = (
        f"{visible:.3f} (by the spread of the last evaluation, on {spread[1]} rows)"
        if spread
        else f"{visible:.2f} standard deviations of the rows' gains (nothing was evaluated yet)"
    )
    where = (
        "raise `evaluation.max_rows`" if held_out > rows else "publish more documents or raise `rows.held_out_percent`"
    )
    return (
        f"with {rows} of {held_out} held-out rows, {metric} cannot show a difference below {unit}. "
        f"To see half of that, about {4 * rows} rows are needed: {where}"
    )
