"""The figures of an evaluation: every metric of every model with its interval, and the candidate's gains."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy

from services.evaluation import metrics
from services.evaluation.domain import (
    BASE,
    CANDIDATE,
    LOG_LIKELIHOOD,
    PAIR_MARGIN,
    WIN_RATE,
    AnsweredRow,
    Estimate,
    Goal,
    GoalState,
    HeldOutSet,
    MetricFigures,
    ModelCost,
    ModelResult,
    SpecialistTerms,
)
from services.evaluation.measurement import Measurement
from services.evaluation.metrics.context import MetricContext
from services.evaluation.statistics import estimate, estimate_gain, find_clusters
from tailor.errors import FailedPrecondition, InvalidArgument
from tailor.metric_kinds import parse_parameters
from tailor.values import MetricDefinition

# What is measured if a specialist names no metrics. `terms` needs house terms.
BUILT_IN = (LOG_LIKELIHOOD, "rouge1", "rouge2", "rougeL", "bleu", "terms", "repetition", "fabrication", "perplexity")
# What is measured on ranked pairs.
PAIRED = (PAIR_MARGIN, WIN_RATE)


@dataclass(frozen=True)
class MeasuredFigures:
    """Figures of the metrics; the reasons of those that were not measured; the values of each row, and counts, by metric."""

    metrics: tuple[MetricFigures, ...] = ()
    not_measured: Mapping[str, str] = field(default_factory=dict)
    row_values: Mapping[str, Mapping[str, Sequence[float | None]]] = field(default_factory=dict)
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def list_metrics(terms: SpecialistTerms, held_out: HeldOutSet) -> list[MetricDefinition]:
    """The specialist's metrics or the built-in ones, and always those that decide by default."""
    names = [name for name in BUILT_IN if name != "terms" or terms.house_terms]
    defined = list(terms.metrics) or [MetricDefinition(name, name) for name in names]
    needed = [*(PAIRED if held_out.has_pairs else ()), LOG_LIKELIHOOD]
    known = {metric.name for metric in defined}
    return [*(MetricDefinition(name, name) for name in needed if name not in known), *defined]


def measure_all(
    terms: SpecialistTerms, held_out: HeldOutSet, results: Mapping[str, ModelResult], context: MetricContext
) -> MeasuredFigures:
    """Measure every metric. May block on the judge model or a metric service, and raises Unavailable while one does not answer."""
    answered = {model: result.answered_rows(held_out.rows) for model, result in results.items()}
    clusters = find_clusters(held_out.rows)
    figures: list[MetricFigures] = []
    not_measured: dict[str, str] = {}
    row_values: dict[str, Mapping[str, Sequence[float | None]]] = {}
    counts: dict[str, Mapping[str, int]] = {}
    for definition in list_metrics(terms, held_out):
        measurements, reason = _measure_models(definition, answered, context)
        if CANDIDATE not in measurements:
            not_measured[definition.name] = reason
            continue
        lower = metrics.is_lower_better(definition)
        figures += _summarise(definition.name, measurements, clusters, lower_is_better=lower)
        row_values[definition.name] = {model: measurement.row_values() for model, measurement in measurements.items()}
        counts[definition.name] = measurements[CANDIDATE].counts
    return MeasuredFigures(tuple(figures), not_measured, row_values, counts)


def _measure_models(
    definition: MetricDefinition, answered: Mapping[str, Sequence[AnsweredRow]], context: MetricContext
) -> tuple[dict[str, Measurement], str]:
    """The measurements of the models that can be measured, and the last reason of one that cannot."""
    measurements: dict[str, Measurement] = {}
    reason = ""
    wanted = _choose(definition, answered[CANDIDATE])
    # A model that is compared with itself ties.
    answers = {model: [row.answer for row in rows] for model, rows in answered.items()}
    context = replace(context, answers=answers).select(wanted)
    for model, rows in answered.items():
        chosen = [row for row, is_wanted in zip(rows, wanted, strict=True) if is_wanted]
        try:
            measurement = metrics.measure(definition, chosen, context)
        except (FailedPrecondition, InvalidArgument) as error:
            reason = str(error)
        else:
            measurements[model] = metrics.spread(measurement, wanted)
    return measurements, reason


def _choose(definition: MetricDefinition, rows: Sequence[AnsweredRow]) -> list[bool]:
    """Pairs for the metrics of pairs. For others the documents' rows, whose references people wrote; without any, the chosen answers."""
    pairs = [row.row.rejected is not None for row in rows]
    if definition.kind in PAIRED or all(pairs):
        return pairs
    return [not is_pair for is_pair in pairs]


def _summarise(
    name: str, measurements: Mapping[str, Measurement], clusters: Sequence[int], *, lower_is_better: bool
) -> list[MetricFigures]:
    """The figures of a metric and of its parts."""
    candidate = measurements[CANDIDATE]
    gains = {
        model: estimate_gain(candidate, measurement, clusters, lower_is_better=lower_is_better)
        for model, measurement in measurements.items()
        if model != CANDIDATE
    }
    models = {model: estimate(measurement, clusters) for model, measurement in measurements.items()}
    summaries = [MetricFigures(name, lower_is_better, models, gains)]
    for part in candidate.parts:
        parts = {
            model: measurement.parts[part] for model, measurement in measurements.items() if part in measurement.parts
        }
        summaries += _summarise(f"{name}.{part}", parts, clusters, lower_is_better=lower_is_better)
    return summaries


def fixed_value(name: str, value: float, *, lower_is_better: bool = False) -> MetricFigures:
    """A measure of the candidate that has no spread, such as its parity."""
    return MetricFigures(name, lower_is_better, {CANDIDATE: Estimate(value, value, value, 1)}, {})


def measure_cost(model: str, result: ModelResult) -> ModelCost:
    """What the answers of a model took. The price is unknown here."""
    answers = [answer for answer in result.answers if answer is not None]
    if not answers:
        return ModelCost(model, 0, 0.0, 0.0, 0.0, 0.0)
    median, p95 = numpy.quantile([answer.seconds for answer in answers], [0.5, 0.95])
    return ModelCost(
        model,
        len(answers),
        float(median),
        float(p95),
        sum(answer.prompt_tokens for answer in answers) / len(answers),
        sum(answer.tokens for answer in answers) / len(answers),
        cut_answers=sum(not answer.finished for answer in answers),
    )


def list_goals(metrics: Sequence[MetricDefinition], figures: Sequence[MetricFigures]) -> list[Goal]:
    """The goals that a specialist sets for its measured metrics, in their order: shown in reports. The gate has its own conditions."""
    by_name = {entry.metric: entry for entry in figures}
    return [goal for metric in metrics if metric.name in by_name for goal in _goals(metric, by_name[metric.name])]


def _goals(metric: MetricDefinition, figures: MetricFigures) -> Iterator[Goal]:
    parameters = parse_parameters(metric.kind, metric.parameters_json)
    value, gain = figures.models.get(CANDIDATE), figures.gains.get(BASE)
    if parameters.goal is not None and value is not None:
        state = _state(value, parameters.goal, lower_is_better=figures.lower_is_better)
        yield Goal(metric.name, parameters.goal, False, value, state)
    if parameters.goal_gain is not None and gain is not None:
        # Gains are signed so that positive is better.
        yield Goal(
            metric.name, parameters.goal_gain, True, gain, _state(gain, parameters.goal_gain, lower_is_better=False)
        )


def _state(estimate: Estimate, goal: float, *, lower_is_better: bool) -> GoalState:
    if lower_is_better:
        return (
            GoalState.REACHED if estimate.high <= goal else GoalState.MISSED if estimate.low > goal else GoalState.OPEN
        )
    return GoalState.REACHED if estimate.low >= goal else GoalState.MISSED if estimate.high < goal else GoalState.OPEN
