"""Micro F1 of terms (van Rijsbergen 1979, "Information Retrieval", chapter 7), with the words that must not stand in a term's place."""

import re
from collections.abc import Iterable, Mapping, Sequence

from services.evaluation.domain import AnsweredRow
from services.evaluation.measurement import Measurement, ratio_of
from services.evaluation.metrics.context import MetricContext
from tailor.errors import FailedPrecondition, Reason
from tailor.metric_kinds import TermsParameters


def measure(rows: Sequence[AnsweredRow], context: MetricContext) -> Measurement:
    """2 TP / (2 TP + FP + FN) over all rows and terms, 0 to 1; 0 if no text has a term.

    A term counts at most once per text, as whole words, in any case and across line breaks. A word of `instead_of` in an answer is a false
    positive, unless the reference has it too. Rows without a term in either text count nothing. Raises FailedPrecondition
    (NOTHING_TO_MEASURE) without terms.
    """
    parameters = context.parameters_as(TermsParameters)
    terms = dict.fromkeys([*(parameters.terms or context.house_terms), *parameters.instead_of])
    if not terms:
        raise FailedPrecondition(
            Reason.NOTHING_TO_MEASURE, "The metric has no terms, and the specialist has no house terms."
        )
    wanted = _patterns(terms)
    unwanted = _patterns(word for words in parameters.instead_of.values() for word in words)
    counts = [None if row.answer is None else _count(row.answer, row.row.reference, wanted, unwanted) for row in rows]
    return ratio_of(counts)


def _count(
    answer: str, reference: str, wanted: Mapping[str, re.Pattern[str]], unwanted: Mapping[str, re.Pattern[str]]
) -> tuple[float, float]:
    """2 TP and 2 TP + FP + FN of one row."""
    written, expected = _find(answer, wanted), _find(reference, wanted)
    wrong = _find(answer, unwanted) - _find(reference, unwanted)
    return 2.0 * len(written & expected), float(len(written) + len(expected) + len(wrong))


def _patterns(terms: Iterable[str]) -> dict[str, re.Pattern[str]]:
    plain = dict.fromkeys(_normalize(term) for term in terms)
    return {term: re.compile(rf"(?<!\w){re.escape(term)}(?!\w)") for term in plain if term}


def _find(text: str, patterns: Mapping[str, re.Pattern[str]]) -> set[str]:
    plain = _normalize(text)
    return {term for term, pattern in patterns.items() if term in plain and pattern.search(plain)}


def _normalize(text: str) -> str:
    return " ".join(text.casefold().split())
