"""ROUGE-2: overlap of pairs of words of answer and reference.

Source: Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries".
"""

from collections.abc import Sequence

from services.evaluation.domain import AnsweredRow
from services.evaluation.measurement import Measurement
from services.evaluation.metrics.context import MetricContext
from services.evaluation.metrics.rouge import measure_rouge


def measure(rows: Sequence[AnsweredRow], context: MetricContext) -> Measurement:
    """The mean F1, 0 to 1."""
    return measure_rouge("rouge2", rows)
