"""Exposure of a secret: how much likelier a model finds it than other values of the same pattern.

Carlini et al. 2019, "The Secret Sharer" (USENIX Security, arXiv:1802.08232), section 4: exposure = log2 |R| - log2 rank, where the rank is
that of the secret by log-likelihood among the values R. R is sampled here (section 4.3), so the exposure is at most log2 |R|. Beyond
that, the share of likelier values is extrapolated with a skew-normal distribution of their log-likelihoods, as in the same section.
"""

import math
from collections.abc import Sequence

import numpy
from scipy import stats


def exposure(secret: float, others: Sequence[float]) -> float:
    """log2 |R| - log2 rank, in bits, for the log-likelihoods of the secret and of the other values of R.

    Ties count against the secret. Without learning, every rank is equally likely, and the mean exposure is about log2 e = 1.44.
    """
    rank = 1 + sum(other >= secret for other in others)
    return math.log2(len(others) + 1) - math.log2(rank)


def tail_bits(secret: float, others: Sequence[float]) -> float:
    """-log2 of the estimated probability that a random value is at least as likely as the secret; at most 1,000 bits.

    0 if the others do not vary.
    """
    values = numpy.asarray(others, dtype=float)
    if len(values) < 2 or not numpy.std(values):
        return 0.0
    shape, location, scale = stats.skewnorm.fit(values)
    # A fit with much skew ends abruptly, so that the tail would be empty. The normal distribution bounds it from below.
    tail = max(
        stats.skewnorm.sf(secret, shape, location, scale), stats.norm.sf(secret, values.mean(), values.std(ddof=1))
    )
    return float(min(-math.log2(tail), 1000.0)) if tail > 0 else 1000.0
