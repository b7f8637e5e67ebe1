"""Estimates with 95 % intervals, by one bootstrap for every metric: over clusters of rows, and paired between models.

Rows that share a document are one cluster, because they are not independent. Each end of an interval is the more cautious of two, from the
same resamples: the percentile interval, widened for few clusters (Hesterberg 2015, What Teachers Should Know About the Bootstrap, 3.2), and
the standard interval with Student's t (Efron and Tibshirani 1993, chapter 12).
"""

import math
from collections.abc import Sequence

import numpy
from scipy import sparse, stats
from scipy.sparse import csgraph

from services.evaluation.domain import Estimate, HeldOutRow
from services.evaluation.measurement import Combine, Measurement, Sums

METHOD = "paired cluster bootstrap, 95 %: the wider of the widened percentile and Student's t interval at each end"
CONFIDENCE = 0.95
RESAMPLES = 4000
SEED = 16
# Resamples that are in memory at a time.
BATCH = 500
UNKNOWN = Estimate(math.nan, -math.inf, math.inf, 0)


def find_clusters(rows: Sequence[HeldOutRow]) -> list[int]:
    """The number of each row's cluster: rows that share a document, also through other rows, have the same one."""
    documents: dict[str, int] = {}
    edges = [
        (place, len(rows) + documents.setdefault(document_id, len(documents)))
        for place, row in enumerate(rows)
        for document_id in row.document_ids
    ]
    nodes = len(rows) + len(documents)
    graph = sparse.coo_array((numpy.ones(len(edges)), numpy.array(edges, dtype=int).reshape(-1, 2).T), (nodes, nodes))
    _, numbers = csgraph.connected_components(graph, directed=False)
    return list(map(int, numbers[: len(rows)]))


def estimate(measurement: Measurement, clusters: Sequence[int]) -> Estimate:
    """The value on all rows that the metric applies to. `clusters` has a number per row."""
    places = [place for place, row in enumerate(measurement.statistics) if row is not None]
    sums = _sum_clusters(_take(measurement, places), [clusters[place] for place in places])
    return _bootstrap(sums, measurement.combine, len(places))


def estimate_gain(
    candidate: Measurement, other: Measurement, clusters: Sequence[int], *, lower_is_better: bool = False
) -> Estimate:
    """The paired gain of the candidate on the rows that both were measured on. Positive is better, also if a lower value is."""
    pairs = zip(candidate.statistics, other.statistics, strict=True)
    places = [place for place, (ours, theirs) in enumerate(pairs) if ours is not None and theirs is not None]
    if not places:
        return UNKNOWN
    ours, theirs = _take(candidate, places), _take(other, places)
    width, sign = ours.shape[1], -1.0 if lower_is_better else 1.0

    def gain(sums: Sums) -> Sums:
        result: Sums = sign * (candidate.combine(sums[..., :width]) - other.combine(sums[..., width:]))
        return result

    sums = _sum_clusters(numpy.hstack([ours, theirs]), [clusters[place] for place in places])
    return _bootstrap(sums, gain, len(places))


def _take(measurement: Measurement, places: Sequence[int]) -> Sums:
    """The statistics of some rows, (rows, k)."""
    return numpy.array([measurement.statistics[place] for place in places], dtype=float)


def _sum_clusters(statistics: Sums, clusters: Sequence[int]) -> Sums:
    """The sums of each cluster, (clusters, k)."""
    _, numbers = numpy.unique(numpy.array(clusters, dtype=int), return_inverse=True)
    sums = numpy.zeros((numbers.max() + 1 if len(numbers) else 0, *statistics.shape[1:]))
    numpy.add.at(sums, numbers, statistics)
    return sums


def _bootstrap(sums: Sums, combine: Combine, rows: int) -> Estimate:
    """The value of all clusters with its interval. Fewer than two clusters have no interval: its ends are infinite."""
    count = len(sums)
    if not count:
        return UNKNOWN
    value = float(combine(sums.sum(axis=0)))
    if count == 1:
        return Estimate(value, -math.inf, math.inf, rows)

    def statistic(chosen: numpy.typing.NDArray[numpy.intp], axis: int = -1) -> Sums:
        return combine(sums[chosen].sum(axis=axis - 1))

    correction = math.sqrt(count / (count - 1))
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) * correction
    result = stats.bootstrap(
        (numpy.arange(count),),
        statistic,
        n_resamples=RESAMPLES,
        batch=BATCH,
        vectorized=True,
        method="percentile",
        confidence_level=1 - 2 * float(stats.norm.cdf(-quantile)),
        rng=numpy.random.default_rng(SEED),
    )
    interval, margin = result.confidence_interval, quantile * float(result.standard_error)
    return Estimate(value, min(float(interval.low), value - margin), max(float(interval.high), value + margin), rows)
