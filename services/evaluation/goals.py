"""Goals that a specialist sets for its metrics: a value, or a gain over the base. Shown in reports; the gate has its own conditions."""

from collections.abc import Iterator, Sequence

from services.evaluation.domain import BASE, CANDIDATE, Estimate, Goal, GoalState, MetricFigures
from tailor.metric_kinds import parse_parameters
from tailor.words import MetricDefinition


def list_goals(metrics: Sequence[MetricDefinition], figures: Sequence[MetricFigures]) -> list[Goal]:
    """The goals of the measured metrics, in their order."""
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
