"""F1 of labels, macro or micro (Sokolova and Lapalme 2009, "A systematic analysis of performance measures for classification tasks")."""

import re
from collections.abc import Callable, Sequence

import numpy

from services.evaluation.domain import AnsweredRow
from services.evaluation.measurement import Measurement, Statistics, Sums
from services.evaluation.metrics.context import MetricContext
from tailor.errors import FailedPrecondition, Reason
from tailor.metric_kinds import ClassificationParameters

MAX_LABELS = 200


def measure(rows: Sequence[AnsweredRow], context: MetricContext) -> Measurement:
    """F1, 0 to 1. The label of a text is the text itself, without punctuation around it, or else the only label that it contains.

    An answer with no label, or with several, is wrong; `counts` has their number. Rows whose reference has no label do not count. Macro
    averages over the labels that a reference or an answer has. Statistics: TP, FP and FN of each label. Raises FailedPrecondition
    (NOTHING_TO_MEASURE) if the references do not define at most 200 labels.
    """
    parameters = context.parameters_as(ClassificationParameters)
    labels = _labels(parameters.labels or [row.row.reference for row in rows])
    if not 1 <= len(labels) <= MAX_LABELS:
        raise FailedPrecondition(Reason.NOTHING_TO_MEASURE, f"The metric needs 1 to {MAX_LABELS} labels.")
    find = _finder(labels)
    pairs = [None if row.answer is None else (find(row.row.reference), find(row.answer)) for row in rows]
    statistics = tuple(_count(pair, len(labels)) for pair in pairs)
    unlabelled = sum(pair is not None and pair[0] is not None and pair[1] is None for pair in pairs)
    combine = combine_macro if parameters.average == "macro" else combine_micro
    return Measurement(statistics, combine, counts={"answers_without_one_label": unlabelled})


def combine_macro(sums: Sums) -> Sums:
    """The mean F1 of the labels that occur."""
    true, false, missed = _split(sums)
    occurring = (true + false + missed) > 0
    scores = 2 * true / numpy.where(occurring, 2 * true + false + missed, 1.0)
    return numpy.asarray(scores.sum(axis=-1) / numpy.maximum(occurring.sum(axis=-1), 1))


def combine_micro(sums: Sums) -> Sums:
    """The F1 of all labels together."""
    true, false, missed = (part.sum(axis=-1) for part in _split(sums))
    total = 2 * true + false + missed
    return numpy.asarray(2 * true / numpy.where(total > 0, total, 1.0))


def _split(sums: Sums) -> tuple[Sums, Sums, Sums]:
    return sums[..., 0::3], sums[..., 1::3], sums[..., 2::3]


def _count(pair: tuple[int | None, int | None] | None, labels: int) -> Statistics:
    expected, predicted = pair or (None, None)
    if expected is None:
        return None
    counts = [0.0] * (3 * labels)
    if predicted == expected:
        counts[3 * expected] = 1.0
    else:
        counts[3 * expected + 2] = 1.0
        if predicted is not None:
            counts[3 * predicted + 1] = 1.0
    return tuple(counts)


def _labels(texts: Sequence[str]) -> list[str]:
    return sorted({label for label in map(_normalize, texts) if label})


def _finder(labels: Sequence[str]) -> Callable[[str], int | None]:
    numbers = {label: number for number, label in enumerate(labels)}
    patterns = [re.compile(rf"(?<!\w){re.escape(label)}(?!\w)") for label in labels]

    def find(text: str) -> int | None:
        plain = _normalize(text)
        if plain in numbers:
            return numbers[plain]
        matches = [number for number, pattern in enumerate(patterns) if pattern.search(plain)]
        return matches[0] if len(matches) == 1 else None

    return find


def _normalize(text: str) -> str:
    return " ".join(text.casefold().split()).strip(".,;:!?\"'`*()[]")
