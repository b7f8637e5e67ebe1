"""Perplexity of the references (Jelinek et al. 1977, "Perplexity: a measure of the difficulty of speech recognition tasks")."""

from collections.abc import Sequence
from dataclasses import replace

import numpy

from services.evaluation.domain import AnsweredRow
from services.evaluation.measurement import Measurement, Sums, ratio
from services.evaluation.metrics import log_likelihood
from services.evaluation.metrics.context import MetricContext

LOWER_IS_BETTER = True
# exp of it stays within a float.
MAX_LOSS = 700.0


def measure(rows: Sequence[AnsweredRow], context: MetricContext) -> Measurement:
    """exp of the mean negative log-probability per token, from 1."""
    return replace(log_likelihood.measure(rows, context), combine=combine)


def combine(sums: Sums) -> Sums:
    """Perplexity from sums of log-probabilities and tokens."""
    return numpy.asarray(numpy.exp(numpy.minimum(-ratio(sums), MAX_LOSS)))
