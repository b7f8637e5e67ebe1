"""Citations that exist (after Gao et al. 2023, "Enabling Large Language Models to Generate Text with Citations", citation precision)."""

from collections.abc import Sequence

from services.evaluation.domain import AnsweredRow
from services.evaluation.measurement import Measurement, ratio_of
from services.evaluation.metrics.context import MetricContext
from services.evaluation.metrics.patterns import SafePattern
from tailor.metric_kinds import CitationsParameters


def measure(rows: Sequence[AnsweredRow], context: MetricContext) -> Measurement:
    """The share of citations in the answers that are in the prompt or the reference and, if there is one, in the register; 0 to 1.

    An answer without citations, whose reference has some, counts as one wrong citation. Rows without citations in either text do not
    count. `counts` has the answers that could not be searched in time, which count as wrong.
    """
    parameters = context.parameters_as(CitationsParameters)
    pattern, register = SafePattern(parameters.pattern), {_normalize(entry) for entry in parameters.entries}
    pairs = [_count(row, pattern, register) for row in rows]
    measurement = ratio_of(pairs)
    return Measurement(measurement.statistics, measurement.combine, counts={"timeouts": pattern.timeouts})


def _count(answered: AnsweredRow, pattern: SafePattern, register: set[str]) -> tuple[float, float] | None:
    if answered.answer is None:
        return None
    cited = _find(pattern, answered.answer)
    if cited is None:
        return (0.0, 1.0)
    expected = _find(pattern, answered.row.reference) or set()
    if not cited:
        return (0.0, 1.0) if expected else None
    known = expected | (_find(pattern, answered.row.prompt) or set())
    valid = cited & known & register if register else cited & known
    return (float(len(valid)), float(len(cited)))


def _find(pattern: SafePattern, text: str) -> set[str] | None:
    matches = pattern.find_all(text)
    return None if matches is None else {_normalize(entry) for entry in matches}


def _normalize(text: str) -> str:
    return " ".join(text.casefold().split()).strip("[]() ")
