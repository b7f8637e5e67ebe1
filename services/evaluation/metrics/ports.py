"""The Protocol of a metric: a module of this package, which is found by its name."""

from collections.abc import Sequence
from typing import Protocol

from services.evaluation.domain import AnsweredRow
from services.evaluation.measurement import Measurement
from services.evaluation.metrics.context import MetricContext


class Metric(Protocol):
    """One kind of metric."""

    def measure(self, rows: Sequence[AnsweredRow], context: MetricContext) -> Measurement: ...
