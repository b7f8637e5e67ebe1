"""The figures of a suite: estimates with intervals over its items, and counts."""

from collections.abc import Iterator

from services.evaluation.domain import BASE, CANDIDATE, Estimate, MetricFigures
from services.evaluation.statistics import estimate, estimate_gain
from services.evaluation.suites.suite import SuiteMeasure, SuiteResult


def summarise(result: SuiteResult) -> Iterator[MetricFigures]:
    """The estimates of a suite's measures, each item by itself, and its counts, which have no spread."""
    for name, measure in result.measures.items():
        yield _estimate(name, measure)
    for name, counts in result.counts.items():
        models = {model: Estimate(count, count, count, 1) for model, count in counts.items()}
        gain = float(counts[BASE] - counts[CANDIDATE])
        yield MetricFigures(name, True, models, {BASE: Estimate(gain, gain, gain, 1)})


def _estimate(name: str, measure: SuiteMeasure) -> MetricFigures:
    candidate = measure.models[CANDIDATE]
    clusters = range(len(candidate.statistics))
    gain = estimate_gain(candidate, measure.models[BASE], clusters, lower_is_better=measure.lower_is_better)
    models = {model: estimate(values, clusters) for model, values in measure.models.items()}
    return MetricFigures(name, measure.lower_is_better, models, {BASE: gain})
