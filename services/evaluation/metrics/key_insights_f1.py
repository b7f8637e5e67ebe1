"""Micro F1 of key insights.

After Nenkova and Passonneau 2004, "Evaluating Content Selection in Summarization: The Pyramid Method", and Min et al. 2023, "FActScore".
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy
from scipy.optimize import linear_sum_assignment

from services.evaluation.domain import AnsweredRow
from services.evaluation.judge.prompts import KINDS, insights_request, same_request
from services.evaluation.measurement import Measurement, ratio_of
from services.evaluation.metrics.context import MetricContext
from services.evaluation.metrics.similarity import names_agree, similarity, values_agree, values_of
from services.evaluation.ports import JudgeModel

EXTRACT_TOKENS, MATCH_TOKENS = 2000, 1500
# Statements with the same figures need fewer words in common than those without any.
ALIKE, ALIKE_WITH_VALUES = 0.6, 0.25

Insights = Mapping[str, tuple[str, ...]]
SayTheSame = Callable[[Sequence[str], Sequence[str]], list[tuple[int, int]]]


@dataclass(frozen=True)
class _RowCount:
    """Matches, expected and written insights, by kind; written ones with figures that the answer does not have are dropped."""

    counts: Mapping[str, tuple[int, int, int]]
    dropped: int


def measure(rows: Sequence[AnsweredRow], context: MetricContext) -> Measurement:
    """2 x matches / (expected + written) over all insights, 0 to 1, with a part for each kind. Blocks on the judge model.

    Expected are the insights of a golden document, or else those that the judge extracts from the reference; written are those that it
    extracts from the answer. Two match if their figures and dates are equal, owners have the same names, and the words are alike or the
    judge says that they mean the same. Each matches one other of its kind at most. Rows without expected insights, and rows that the judge
    does not answer as asked (`counts`), do not count. Raises FailedPrecondition (NO_JUDGE).
    """
    judge = context.require_judge()
    with ThreadPoolExecutor(context.concurrency, thread_name_prefix="judge") as pool:
        results = list(pool.map(lambda row: _count(row, judge), rows))
    failures = sum(row.answer is not None and result is None for row, result in zip(rows, results, strict=True))
    dropped = sum(result.dropped for result in results if result is not None)
    parts = {kind: ratio_of([_pair(result, (kind,)) for result in results]) for kind in KINDS}
    total = ratio_of([_pair(result, KINDS) for result in results])
    counts = {"judge_failures": failures, "invented_by_judge": dropped}
    return Measurement(total.statistics, total.combine, parts=parts, counts=counts)


def _pair(result: _RowCount | None, kinds: Sequence[str]) -> tuple[float, float] | None:
    if result is None:
        return None
    matches, expected, written = (sum(result.counts[kind][place] for kind in kinds) for place in range(3))
    return (2.0 * matches, float(expected + written)) if expected + written else None


def _count(row: AnsweredRow, judge: JudgeModel) -> _RowCount | None:
    if row.answer is None:
        return None
    language = row.row.language
    expected = _parse_insights(row.row.key_insights) or _extract_insights(judge, row.row.reference)
    extracted = _extract_insights(judge, row.answer)
    if expected is None or extracted is None:
        return None
    written = {kind: _supported(entries, row.answer, language) for kind, entries in extracted.items()}
    dropped = sum(map(len, extracted.values())) - sum(map(len, written.values()))
    return _RowCount(_match_kinds(expected, written, language, judge), dropped)


def _supported(entries: Sequence[str], answer: str, language: str) -> tuple[str, ...]:
    """The extracted insights whose figures and dates the answer has."""
    known = values_of(answer, language)
    return tuple(entry for entry in entries if not values_of(entry, language).missing_in(known))


def _match_kinds(
    expected: Insights, written: Insights, language: str, judge: JudgeModel
) -> dict[str, tuple[int, int, int]]:
    counts = {}
    for kind in KINDS:
        statements = _Statements(expected[kind], written[kind], language, with_names=kind == "owners")
        matches = _match(statements, lambda ours, theirs: _say_same(judge, ours, theirs))
        counts[kind] = (matches, len(expected[kind]), len(written[kind]))
    return counts


def _say_same(judge: JudgeModel, expected: Sequence[str], written: Sequence[str]) -> list[tuple[int, int]]:
    """The pairs, as indexes, that mean the same according to the judge."""
    messages, schema = same_request(expected, written)
    content = judge.ask(messages, schema, MATCH_TOKENS)
    pairs = [] if content is None else content["pairs"]
    return [(pair["expected"] - 1, pair["written"] - 1) for pair in pairs]


def _parse_insights(key_insights: str) -> Insights | None:
    """The insights of a golden row; None if it has none."""
    return _to_insights(json.loads(key_insights)) if key_insights else None


def _extract_insights(judge: JudgeModel, text: str) -> Insights | None:
    """The insights that the judge model finds in a text; None if it gave no list. Blocks."""
    messages, schema = insights_request(text)
    content = judge.ask(messages, schema, EXTRACT_TOKENS)
    return None if content is None else _to_insights(content)


def _to_insights(content: Mapping[str, object]) -> Insights:
    return {kind: _statements(content.get(kind)) for kind in KINDS}


def _statements(entries: object) -> tuple[str, ...]:
    if not isinstance(entries, list):
        return ()
    texts = (" ".join(str(entry).split()) for entry in entries)
    return tuple(dict.fromkeys(text for text in texts if text))


@dataclass(frozen=True)
class _Statements:
    """Expected and written statements of one kind; with `with_names`, their names must agree too."""

    expected: Sequence[str]
    written: Sequence[str]
    language: str = ""
    with_names: bool = False

    def may_match(self, first: int, second: int) -> bool:
        """True if figures, dates and, where they must, names agree."""
        ours, theirs = self.expected[first], self.written[second]
        return values_agree(ours, theirs, self.language) and (
            not self.with_names or names_agree(ours, theirs, self.language)
        )

    def similarity_of(self, first: int, second: int) -> float:
        """The similarity_of of the words, if it is enough for a match by itself, else 0."""
        ours, theirs = self.expected[first], self.written[second]
        least = ALIKE_WITH_VALUES if values_of(ours, self.language) else ALIKE
        similarity_of = similarity(ours, theirs, self.language)
        return similarity_of if similarity_of >= least and self.may_match(first, second) else 0.0


def _match(statements: _Statements, say_the_same: SayTheSame) -> int:
    """The number of one-to-one matches: by figures and words first, then by `say_the_same`.

    It is asked once, and only if statements are left whose figures agree.
    """
    pairs = _match_words(statements)
    ours = [number for number in range(len(statements.expected)) if number not in {first for first, _ in pairs}]
    theirs = [number for number in range(len(statements.written)) if number not in {second for _, second in pairs}]
    allowed = {(first, second) for first in ours for second in theirs if statements.may_match(first, second)}
    ours = [number for number in ours if any(first == number for first, _ in allowed)]
    theirs = [number for number in theirs if any(second == number for _, second in allowed)]
    if not allowed:
        return len(pairs)
    named = say_the_same(
        [statements.expected[number] for number in ours], [statements.written[number] for number in theirs]
    )
    chosen = [
        (ours[first], theirs[second]) for first, second in named if 0 <= first < len(ours) and 0 <= second < len(theirs)
    ]
    return len(pairs) + _count_once(pair for pair in chosen if pair in allowed)


def _match_words(statements: _Statements) -> list[tuple[int, int]]:
    """The pairs with the greatest similarity_of in all (Kuhn 1955)."""
    if not statements.expected or not statements.written:
        return []
    similarity_of = numpy.array(
        [
            [statements.similarity_of(first, second) for second in range(len(statements.written))]
            for first in range(len(statements.expected))
        ]
    )
    firsts, seconds = linear_sum_assignment(similarity_of, maximize=True)
    pairs = zip(firsts.tolist(), seconds.tolist(), strict=True)
    return [(first, second) for first, second in pairs if similarity_of[first, second] > 0]


def _count_once(pairs: Iterable[tuple[int, int]]) -> int:
    """The number of pairs, each statement in one at most."""
    firsts: set[int] = set()
    seconds: set[int] = set()
    for first, second in pairs:
        if first not in firsts and second not in seconds:
            firsts.add(first)
            seconds.add(second)
    return len(firsts)
