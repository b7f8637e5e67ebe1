"""Fabrication: figures and names that nothing supports.

Source: Nan et al. 2021, "Entity-level Factual Consistency of Abstractive Text Summarization".
"""

from collections.abc import Sequence
from dataclasses import dataclass

from services.evaluation.domain import AnsweredRow, HeldOutRow
from services.evaluation.measurement import Measurement, ratio_of
from services.evaluation.metrics.context import MetricContext
from services.evaluation.metrics.figures import Values, find_values
from services.evaluation.metrics.names import find_names, words_of

LOWER_IS_BETTER = True


@dataclass(frozen=True)
class _Source:
    values: Values
    words: frozenset[str]


def measure(rows: Sequence[AnsweredRow], context: MetricContext) -> Measurement:
    """The share of figures, dates and names in the answers that are in neither the prompt nor the source, 0 to 1.

    The source of a row is its reference: the document's own text, or a person's answer. Each value of an answer counts once. Numbers are
    compared by value, names word for word. The parts are `figures` and `names`.
    """
    pairs = [None if row.answer is None else _count(row.row, row.answer) for row in rows]
    figures = ratio_of([pair and pair[0] for pair in pairs])
    names = ratio_of([pair and pair[1] for pair in pairs])
    both = ratio_of([pair and (pair[0][0] + pair[1][0], pair[0][1] + pair[1][1]) for pair in pairs])
    return Measurement(both.statistics, both.combine, parts={"figures": figures, "names": names})


def _count(row: HeldOutRow, answer: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """Unsupported and all, of figures and of names."""
    text = f"{row.prompt}\n\n{row.reference}"
    source = _Source(find_values(text, row.language), words_of(text))
    values = find_values(answer, row.language, words=False)
    missing = values.missing_in(source.values)
    names = find_names(answer, row.language)
    invented = [name for name in names if not set(name) <= source.words]
    return (_size(missing), _size(values)), (float(len(invented)), float(len(names)))


def _size(values: Values) -> float:
    return float(len(values.figures) + len(values.dates))
