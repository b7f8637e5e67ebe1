"""Metrics: one file per kind, found by its name; the variants of ROUGE share one. Each has `measure(rows, context) -> Measurement`.

To add one, see docs/how-to/add-a-metric.md.
"""

import importlib
from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType

from services.evaluation.domain import AnsweredRow
from services.evaluation.measurement import Measurement
from services.evaluation.metrics.context import MetricContext
from tailor.errors import FailedPrecondition, InvalidArgument, Reason
from tailor.metric_kinds import PARAMETERS, RemoteParameters, parse_parameters
from tailor.values import MetricDefinition

# Kinds whose value is the judge model's opinion: they count only as far as it agrees with the experts.
JUDGED = frozenset({"judge", "pitch"})
# Kinds for which the judge model is asked. Key insights count in any case: their figures, dates and names are checked without it.
ASKS_JUDGE = JUDGED | {"key_insights_f1"}


# Kinds that share a module.
MODULES = dict.fromkeys(("rouge1", "rouge2", "rougeL"), "rouge")


def load(kind: str) -> ModuleType:
    """The module of a kind. Raises InvalidArgument (INVALID_METRIC) for an unknown one."""
    if kind not in PARAMETERS:
        raise InvalidArgument(Reason.INVALID_METRIC, f"There is no metric of the kind `{kind}`.")
    return importlib.import_module(f"{__name__}.{MODULES.get(kind, kind.lower())}")


def is_lower_better(metric: MetricDefinition) -> bool:
    """True if a smaller value of the metric is better."""
    parameters = parse_parameters(metric.kind, metric.parameters_json)
    if isinstance(parameters, RemoteParameters):
        return parameters.lower_is_better
    return bool(getattr(load(metric.kind), "LOWER_IS_BETTER", False))


def measure(metric: MetricDefinition, rows: Sequence[AnsweredRow], context: MetricContext) -> Measurement:
    """Measure one metric of a specialist on one model's rows. May block on the judge model or a metric service.

    Rows of tasks that the metric does not name do not count. Raises InvalidArgument (INVALID_METRIC); FailedPrecondition if the metric
    cannot be measured, with the reason; and Unavailable while the judge model or the metric service does not answer.
    """
    parameters = parse_parameters(metric.kind, metric.parameters_json)
    wanted = [not parameters.tasks or row.row.task in parameters.tasks for row in rows]
    chosen = [row for row, is_wanted in zip(rows, wanted, strict=True) if is_wanted]
    if not chosen:
        raise FailedPrecondition(Reason.NOTHING_TO_MEASURE, "No held-out row has one of the metric's tasks.")
    chosen_context = replace(context, kind=metric.kind, parameters=parameters).select(wanted)
    measurement: Measurement = load(metric.kind).measure(chosen, chosen_context)
    if not measurement.rows:
        raise FailedPrecondition(Reason.NOTHING_TO_MEASURE, "The metric applies to none of the held-out rows.")
    return spread(measurement, wanted)


def spread(measurement: Measurement, wanted: Sequence[bool]) -> Measurement:
    """The measurement with an entry for every row, None for those that were left out."""
    entries = iter(measurement.statistics)
    statistics = tuple(next(entries) if is_wanted else None for is_wanted in wanted)
    parts = {name: spread(part, wanted) for name, part in measurement.parts.items()}
    return replace(measurement, statistics=statistics, parts=parts)
