"""Win rate on held-out pairs (the reward without a reference model of SimPO, Meng et al. 2024, arXiv:2405.14734, section 2.2)."""

from collections.abc import Sequence

from services.evaluation.domain import AnsweredRow
from services.evaluation.measurement import Measurement, mean_of
from services.evaluation.metrics.context import MetricContext


def measure(rows: Sequence[AnsweredRow], context: MetricContext) -> Measurement:
    """The share of the experts' held-out pairs whose chosen answer is likelier per token than the rejected one; a tie is a half.

    It asks for the experts' own choice. A reward adapter would be a learned judge that the policy may have exploited, and not every run
    trains one. Per token, because whole sums favour short answers.
    """
    return mean_of(_win(row) for row in rows)


def _win(row: AnsweredRow) -> float | None:
    if row.score is None or row.rejected_score is None:
        return None
    chosen = row.score.log_probability / max(1, row.score.tokens)
    rejected = row.rejected_score.log_probability / max(1, row.rejected_score.tokens)
    return 0.5 if chosen == rejected else float(chosen > rejected)
