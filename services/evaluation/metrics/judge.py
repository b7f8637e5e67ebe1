"""The judge model's opinion: marks from 1 to 5 (Liu et al. 2023, "G-Eval") or comparisons (Zheng et al. 2023, "Judging LLM-as-a-Judge")."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import fmean

from services.evaluation.domain import AnsweredRow
from services.evaluation.judge.prompts import DEFAULT_CRITERIA, Request, Rules
from services.evaluation.judge.verdicts import JudgeComparison, compare, mark
from services.evaluation.measurement import Measurement, mean_of
from services.evaluation.metrics.context import MetricContext
from tailor.errors import FailedPrecondition, Reason
from tailor.metric_kinds import JudgeParameters


def measure(rows: Sequence[AnsweredRow], context: MetricContext) -> Measurement:
    """The mean mark of all criteria, 1 to 5; or the share of comparisons that are won, ties as one half, 0 to 1. Blocks.

    Rubrics have a part for each criterion. Comparisons are made in both orders; `counts` has those in which the order decided, and the
    rows that the judge did not answer as asked, which do not count. Raises FailedPrecondition (NO_JUDGE, NO_MODEL_TO_COMPARE).
    """
    parameters = context.parameters_as(JudgeParameters)
    if parameters.mode == "pairwise":
        return _compare_all(rows, context, parameters.against)
    return _mark_all(rows, context)


def _mark_all(rows: Sequence[AnsweredRow], context: MetricContext) -> Measurement:
    judge, rules = context.require_judge(), _rules(context)

    def mark_row(row: AnsweredRow) -> Mapping[str, int] | None:
        return None if row.answer is None else mark(judge, _request(row), row.answer, rules)

    with ThreadPoolExecutor(context.concurrency, thread_name_prefix="judge") as pool:
        marks = list(pool.map(mark_row, rows))
    parts = {
        criterion.name: mean_of(None if entry is None else entry[criterion.name] for entry in marks)
        for criterion in rules.criteria
    }
    means = mean_of(None if entry is None else fmean(entry.values()) for entry in marks)
    failures = sum(row.answer is not None and entry is None for row, entry in zip(rows, marks, strict=True))
    return Measurement(means.statistics, means.combine, parts=parts, counts={"judge_failures": failures})


def _compare_all(rows: Sequence[AnsweredRow], context: MetricContext, against: str) -> Measurement:
    if against not in context.answers:
        raise FailedPrecondition(
            Reason.NO_MODEL_TO_COMPARE, f"The evaluation has no model `{against}` to compare with."
        )
    judge, rules = context.require_judge(), _rules(context)

    def compare_row(row: AnsweredRow, other: str | None) -> JudgeComparison | None:
        is_pair = row.answer is not None and other is not None
        return compare(judge, _request(row), row.answer or "", other or "", rules) if is_pair else None

    with ThreadPoolExecutor(context.concurrency, thread_name_prefix="judge") as pool:
        comparisons = list(pool.map(compare_row, rows, context.answers[against]))
    outcomes = mean_of(None if entry is None else entry.outcome for entry in comparisons)
    pairs = zip(rows, context.answers[against], comparisons, strict=True)
    failures = sum(row.answer is not None and other is not None and entry is None for row, other, entry in pairs)
    flips = sum(entry is not None and entry.flipped for entry in comparisons)
    counts = {"judge_failures": failures, "order_decided": flips}
    return Measurement(outcomes.statistics, outcomes.combine, counts=counts)


def _rules(context: MetricContext) -> Rules:
    return Rules(tuple(context.criteria) or DEFAULT_CRITERIA, context.guidelines)


def _request(row: AnsweredRow) -> Request:
    return Request(row.row.prompt, row.row.reference)
