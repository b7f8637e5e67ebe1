"""Micro F1 of key insights.

After Nenkova and Passonneau 2004, "Evaluating Content Selection in Summarization: The Pyramid Method", and Min et al. 2023, "FActScore".
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from services.evaluation.domain import AnsweredRow
from services.evaluation.judge.insights import Insights, extract_insights, parse_insights
from services.evaluation.judge.prompts import KINDS, same_request
from services.evaluation.measurement import Measurement, ratio_of
from services.evaluation.metrics.context import MetricContext
from services.evaluation.metrics.matching import Statements, match
from services.evaluation.metrics.similarity import values_of
from services.evaluation.ports import JudgeModel

MAX_TOKENS = 1500


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
    expected = parse_insights(row.row.key_insights) or extract_insights(judge, row.row.reference)
    extracted = extract_insights(judge, row.answer)
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
        statements = Statements(expected[kind], written[kind], language, with_names=kind == "owners")
        matches = match(statements, lambda ours, theirs: _say_same(judge, ours, theirs))
        counts[kind] = (matches, len(expected[kind]), len(written[kind]))
    return counts


def _say_same(judge: JudgeModel, expected: Sequence[str], written: Sequence[str]) -> list[tuple[int, int]]:
    """The pairs, as indexes, that mean the same according to the judge."""
    messages, schema = same_request(expected, written)
    content = judge.ask(messages, schema, MAX_TOKENS)
    pairs = [] if content is None else content["pairs"]
    return [(pair["expected"] - 1, pair["written"] - 1) for pair in pairs]
