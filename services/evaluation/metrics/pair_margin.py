"""Margin on held-out pairs (the reward without a reference model of SimPO, Meng et al. 2024, arXiv:2405.14734, section 2.2)."""

from collections.abc import Sequence

from services.evaluation.domain import AnsweredRow
from services.evaluation.measurement import Measurement, mean_of
from services.evaluation.metrics.context import MetricContext


def measure(rows: Sequence[AnsweredRow], context: MetricContext) -> Measurement:
    """The mean difference between the log-probabilities per token of the experts' chosen answers and of the rejected ones, in nats.

    It shows what rankings change with far fewer pairs than the win rate, which moves only where a pair changes its order.
    """
    return mean_of(margin(row) for row in rows)


def margin(row: AnsweredRow) -> float | None:
    """The log-probability per token of a pair's chosen answer less that of the rejected one; None for other rows.

    Per token, because whole sums favour short answers.
    """
    if row.score is None or row.rejected_score is None:
        return None
    chosen = row.score.log_probability / max(1, row.score.tokens)
    return chosen - row.rejected_score.log_probability / max(1, row.rejected_score.tokens)
