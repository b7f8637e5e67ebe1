"""Asks one model after another about the rows of an evaluation, stores each model's result, and counts progress."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from services.evaluation.adapters.sql import SqlEvaluations, SqlModelResults
from services.evaluation.domain import (
    BASE,
    CANDIDATE,
    EXTERNAL,
    INCUMBENT,
    TOO_LONG,
    Answer,
    EvaluationState,
    HeldOutRow,
    HeldOutSet,
    ModelResult,
    Score,
    result_key,
)
from services.evaluation.ports import EvaluatedModel
from services.evaluation.served_models import call
from tailor.errors import FailedPrecondition, InvalidArgument, Reason
from tailor.jobs import HeldJob
from tailor.logging import get_logger
from tailor.values import SamplingDefaults

log = get_logger(__name__)

T = TypeVar("T")

# Without these there is no comparison, so the evaluation fails if one of them cannot be measured.
REQUIRED = {BASE, INCUMBENT, CANDIDATE}
# Share of the rows that may not fit the context. With more, what is left does not show what the specialist is for.
MAX_TOO_LONG = 0.2


@dataclass(frozen=True)
class ModelResultsOf:
    """Results by model on the same rows, those that fit, and the reason of each model that was left out."""

    held_out: HeldOutSet
    results: Mapping[str, ModelResult]
    skipped: Mapping[str, str]


class ModelRunner:
    """Runs the rows of one evaluation."""

    def __init__(
        self,
        evaluations: SqlEvaluations,
        results: SqlModelResults,
        job: HeldJob,
        held_out: HeldOutSet,
        sampling: SamplingDefaults,
        *,
        concurrency: int,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self._evaluations = evaluations
        self._results = results
        self._job = job
        self._held_out = held_out
        self._sampling = sampling
        self._concurrency = concurrency
        self._sleep = sleep
        self._done = 0

    def run_all(self, models: Sequence[EvaluatedModel]) -> ModelResultsOf:
        """The result of each model, stored or new. Leaves out models that cannot be measured, unless required, and rows that do not fit.

        Raises FailedPrecondition (HELD_OUT_ROWS_TOO_LONG) if too few rows fit.
        """
        rows = len(self._held_out.rows)
        self._evaluations.record(self._job, state=EvaluationState.RUNNING, rows_total=len(models) * rows)
        results: dict[str, ModelResult] = {}
        skipped: dict[str, str] = {}
        for number, model in enumerate(models, 1):
            try:
                results[model.name] = self._result(model)
            except FailedPrecondition as error:
                if model.name in REQUIRED:
                    raise
                log.warning("model left out", model=model.name, reason=error.reason)
                skipped[model.name] = str(error)
            self._count(number * rows - self._done)
        if CANDIDATE in results:
            results = {name: result.per_token_of(results[CANDIDATE]) for name, result in results.items()}
        return _leave_out_long_rows(self._held_out, results, skipped)

    def _result(self, model: EvaluatedModel) -> ModelResult:
        """Only the candidate is asked again in every evaluation."""
        key = result_key(self._held_out, self._sampling)
        result = self._results.find(model.key, key, self._job.key)
        if result is None and model.name != CANDIDATE:
            result = self._results.find(model.key, key)
            if result is not None and None in result.scores and not model.name.startswith(EXTERNAL):
                # Rows did not fit. Inference may serve a longer context now.
                result = None
        if result is None:
            result = self._ask(model)
            self._results.add(self._job, model.key, key, result)
        return result

    def _ask(self, model: EvaluatedModel) -> ModelResult:
        rows = self._held_out.rows
        call(model.prepare, self._sleep)
        # In parallel, so that the engine can batch the requests.
        with ThreadPoolExecutor(self._concurrency, thread_name_prefix="ask") as pool:
            answers = tuple(pool.map(lambda row: self._answer(model, row), rows))
        scores = [self._score(model, row) for row in rows]
        ours, others = (tuple(pair[place] for pair in scores) for place in (0, 1))
        return ModelResult(answers, ours, others, model.notes)

    def _answer(self, model: EvaluatedModel, row: HeldOutRow) -> Answer | None:
        if row.row_id not in self._held_out.answered:
            return None
        return _if_it_fits(lambda: call(lambda: model.answer(row, self._sampling), self._sleep))

    def _score(self, model: EvaluatedModel, row: HeldOutRow) -> tuple[Score | None, Score | None]:
        """Scores of the reference and the rejected answer, one at a time: a batch of prompt log-probabilities can kill an engine.

        A row of which either does not fit has neither.
        """
        score = self._score_text(model, row, row.reference)
        other = None if row.rejected is None else self._score_text(model, row, row.rejected)
        self._count(1)
        is_whole = score is not None and (other is not None or row.rejected is None)
        return (score, other) if is_whole else (None, None)

    def _score_text(self, model: EvaluatedModel, row: HeldOutRow, completion: str) -> Score | None:
        return _if_it_fits(lambda: call(lambda: model.score(row, completion), self._sleep))

    def _count(self, rows: int) -> None:
        if rows:
            self._done += rows
            self._evaluations.record(self._job, rows_done=self._done)


def _if_it_fits(request: Callable[[], T]) -> T | None:
    """None if the row does not fit the context that inference serves."""
    try:
        return request()
    except InvalidArgument as error:
        if error.reason not in TOO_LONG:
            raise
        return None


def _leave_out_long_rows(
    held_out: HeldOutSet, results: Mapping[str, ModelResult], skipped: Mapping[str, str]
) -> ModelResultsOf:
    """Keep the rows that every required model scored: every metric of every model is then measured on the same rows."""
    required = [results[name] for name in REQUIRED & results.keys()]
    places = [place for place in range(len(held_out.rows)) if all(result.scores[place] for result in required)]
    rows, kept = len(held_out.rows), held_out.take(places)
    if len(places) == rows:
        return ModelResultsOf(held_out, results, skipped)
    if kept.too_long > MAX_TOO_LONG * rows:
        raise FailedPrecondition(
            Reason.HELD_OUT_ROWS_TOO_LONG,
            f"{kept.too_long} of {rows} held-out rows do not fit the context that inference serves; at most {MAX_TOO_LONG:.0%} may be "
            "left out. Raise inference's `TAILOR_MAX_MODEL_LEN`, or lower `rows.max_row_tokens` and build again.",
        )
    log.warning("rows left out that do not fit the context", rows=kept.too_long)
    return ModelResultsOf(kept, {name: result.take(places) for name, result in results.items()}, skipped)
