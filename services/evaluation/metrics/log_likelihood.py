"""Log-likelihood per token of the references.

Source: Jelinek et al. 1977, "Perplexity: a measure of the difficulty of speech recognition tasks".
"""

from collections.abc import Sequence

from services.evaluation.domain import AnsweredRow
from services.evaluation.measurement import Measurement, ratio_of
from services.evaluation.metrics.context import MetricContext


def measure(rows: Sequence[AnsweredRow], context: MetricContext) -> Measurement:
    """Mean natural log-probability per token of all references together, at most 0; the end of the turn counts as a token.

    The models score the same texts, and every model's sums are divided by the candidate's tokens, so the paired difference varies little.
    """
    pairs = [
        None if row.score is None or row.score.tokens <= 0 else (row.score.log_probability, float(row.score.tokens))
        for row in rows
    ]
    return ratio_of(pairs)
