"""What a number of rows can show, and how many would decide. The half width of an interval shrinks with the square root of the rows."""

import math

from services.registry.domain import Estimate, Evaluation

# A gain this much smaller than the half width cannot be decided with any number of rows that a company has.
MAX_FACTOR = 1000.0


def count_needed_rows(gain: Estimate, limit: float) -> int | None:
    """The rows with which a gain of this size would be on one side of the limit; None if no number would do."""
    distance = gain.value - limit
    half = gain.value - gain.low if distance > 0 else gain.high - gain.value
    if not distance or not math.isfinite(half / distance) or (half / distance) ** 2 > MAX_FACTOR:
        return None
    return math.ceil(gain.rows * (half / distance) ** 2) + 1


def say_what_decides(evaluation: Evaluation, gain: Estimate, limit: float) -> str:
    """What cannot be seen with the rows of an undecided gain, how many rows would decide, and how to get them."""
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
