"""Win rate on held-out pairs: how often their margin is positive (the reward of Meng et al. 2024, arXiv:2405.14734, section 2.2)."""

from collections.abc import Sequence

from services.evaluation.domain import AnsweredRow
from services.evaluation.measurement import Measurement, mean_of
from services.evaluation.metrics.context import MetricContext
from services.evaluation.metrics.pair_margin import margin


def measure(rows: Sequence[AnsweredRow], context: MetricContext) -> Measurement:
    """The share of the experts' held-out pairs whose chosen answer is likelier per token than the rejected one; a tie is a half.

    It asks for the experts' own choice. A reward adapter would be a learned judge that the policy may have exploited, and not every run
    trains one.
    """
    return mean_of(_win(margin(row)) for row in rows)


def _win(difference: float | None) -> float | None:
    if difference is None:
        return None
    return 0.5 if difference == 0 else float(difference > 0)
