"""A metric of the company's own, measured by a service that it hosts.

The service is `MetricService` of proto/tailor/api/evaluation/v1/metric.proto.
"""

from collections.abc import Sequence

from services.evaluation.domain import AnsweredRow
from services.evaluation.measurement import Measurement, Statistics, ratio
from services.evaluation.metrics.context import MetricContext
from tailor.errors import FailedPrecondition, Reason
from tailor.metric_kinds import RemoteParameters


def measure(rows: Sequence[AnsweredRow], context: MetricContext) -> Measurement:
    """The mean of the rows' values by their weights, in the service's unit. Rows without an answer are not sent. Blocks.

    Raises FailedPrecondition (UNKNOWN_METRIC_SERVICE, METRIC_SERVICE_FAILED), and Unavailable while the service does not answer.
    """
    parameters = context.parameters_as(RemoteParameters)
    if context.services is None:
        raise FailedPrecondition(
            Reason.UNKNOWN_METRIC_SERVICE, "No metric services are set (TAILOR_METRIC_SERVICES of evaluation)."
        )
    answered = [row for row in rows if row.answer is not None]
    pairs = context.services.measure(parameters.service, parameters.metric, parameters.parameters, answered)
    entries = iter(pairs)
    statistics = [_statistics(next(entries)) if row.answer is not None else None for row in rows]
    return Measurement(tuple(statistics), ratio)


def _statistics(pair: tuple[float, float] | None) -> Statistics:
    return None if pair is None else (pair[0] * pair[1], pair[1])
