"""Works off the queue of evaluations: measures the base, the candidate and the incumbent on the same held-out rows."""

import threading
from collections.abc import Callable, Container
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from services.evaluation.domain import (
    BASE,
    CANDIDATE,
    INCUMBENT,
    PARITY,
    PERPLEXITY,
    Adapter,
    Evaluation,
    EvaluationResult,
    HeldOutRow,
    ModelResult,
    Parameters,
    ReportData,
    RetryLimits,
    Score,
    Serving,
    Specialists,
    SpecialistTerms,
    perplexity,
)
from services.evaluation.ports import (
    Artifacts,
    Evaluations,
    HeldOutRows,
    Metrics,
    ModelResults,
    Models,
    ReportStore,
)
from tailor.errors import FailedPrecondition, NotFound, Reason, TailorError, Unavailable
from tailor.logging import get_logger
from tailor.retry import Stopped, retry

log = get_logger(__name__)

T = TypeVar("T")

CALL_ATTEMPTS = 5


@dataclass(frozen=True)
class EvaluationWorker:
    """Evaluates queued adapters one at a time. `erased` holds the ids of erased documents."""

    artifacts: Artifacts
    evaluations: Evaluations
    results: ModelResults
    models: Models
    rows: HeldOutRows
    metrics: Metrics
    reports: ReportStore
    specialists: Specialists
    parameters: Parameters = field(default_factory=Parameters)
    limits: RetryLimits = field(default_factory=RetryLimits)
    erased: Container[str] = frozenset()
    sleep: Callable[[float], None] | None = None

    def run(self, stop: threading.Event, idle_seconds: float = 1.0) -> None:
        """Evaluate until `stop` is set. Blocks. Resumes the evaluations of killed processes."""

        def log_wait(error: TailorError, attempt: int) -> None:
            log.warning("worker waits", reason=error.reason, attempt=attempt)

        try:
            while not stop.is_set():
                if not retry(lambda: self.evaluate_next(stop), stop=stop, on_wait=log_wait):
                    stop.wait(idle_seconds)
        except Stopped:
            return

    def evaluate_next(self, stop: threading.Event) -> bool:
        """Evaluate the next adapter in the queue. Returns False if the queue is empty.

        Retries while a dependency does not answer. An evaluation that cannot succeed fails with its reason. One that `stop` interrupts
        stays open for the next start.
        """
        with self.evaluations.claim() as evaluation:
            if evaluation is None:
                return False

            def log_wait(error: TailorError, attempt: int) -> None:
                log.warning("evaluation waits", evaluation_id=evaluation.evaluation_id, reason=error.reason)

            try:
                if evaluation.attempts > self.limits.max_starts:
                    raise FailedPrecondition(Reason.STARTED_TOO_OFTEN, "The evaluation was started too often.")
                retry(
                    lambda: self.evaluate(evaluation),
                    stop=stop,
                    give_up_seconds=self.limits.give_up_seconds,
                    initial_seconds=1.0,
                    max_seconds=15.0,
                    on_wait=log_wait,
                    sleep=self.sleep,
                )
            except Stopped:
                log.info("evaluation interrupted", evaluation_id=evaluation.evaluation_id)
            except TailorError as error:
                log.error("evaluation failed", evaluation_id=evaluation.evaluation_id, reason=error.reason)
                self.evaluations.fail(evaluation.evaluation_id, error.reason)
        return True

    def evaluate(self, evaluation: Evaluation) -> EvaluationResult:
        """Evaluate every model on the same rows, store the report and publish the result.

        Continues from stored results. Raises Unavailable if a dependency does not answer or an event has not arrived yet, and
        FailedPrecondition if the evaluation cannot succeed.
        """
        adapter = evaluation.adapter
        terms = self.specialists.terms.get(adapter.specialist)
        if terms is None:
            raise Unavailable(Reason.UNKNOWN_SPECIALIST, "The specialist's definition has not arrived yet.")
        rows = self._rows(adapter)
        incumbent = self.specialists.serving.get(adapter.specialist)
        results = self._model_results(evaluation, rows, incumbent)
        scores = {name: self._scores(result, rows, terms) for name, result in results.items()}
        scores[CANDIDATE] |= self._parity(adapter)
        row_metrics = {name: self._row_metrics(result, rows, terms) for name, result in results.items()}
        self._check_not_erased(rows)
        report = self.reports.write(
            ReportData(evaluation, self.parameters, incumbent, rows, results, scores, row_metrics)
        )
        result = EvaluationResult(evaluation, len(rows), scores, incumbent, report)
        self.evaluations.finish(result)
        log.info("evaluated", evaluation_id=evaluation.evaluation_id, adapter=adapter.digest, rows=len(rows))
        return result

    def call(self, request: Callable[[], T]) -> T:
        """Call inference, with a few attempts while it refuses temporarily."""
        return retry(request, attempts=CALL_ATTEMPTS, initial_seconds=0.5, max_seconds=4.0, sleep=self.sleep)

    def _rows(self, adapter: Adapter) -> list[HeldOutRow]:
        manifest = self.artifacts.dataset(adapter.dataset_digest)
        if manifest is None:
            raise Unavailable(Reason.UNKNOWN_DATASET, "The adapter's dataset has not been announced yet.")
        rows = self.rows.held_out(manifest, self.parameters.max_rows)
        if not rows:
            raise FailedPrecondition(Reason.NO_HELD_OUT_ROWS, "The dataset has no held-out rows.")
        self._check_not_erased(rows)
        return rows

    def _check_not_erased(self, rows: list[HeldOutRow]) -> None:
        """Raise FailedPrecondition for rows of an erased document. The dataset that supersedes theirs is evaluated instead."""
        if any(document_id in self.erased for row in rows for document_id in row.document_ids):
            raise FailedPrecondition(Reason.ROWS_ERASED, "A document behind the held-out rows was erased.")

    def _scores(self, result: ModelResult, rows: list[HeldOutRow], terms: SpecialistTerms) -> dict[str, float]:
        """The metrics of all answers together."""
        references = [row.reference for row in rows]
        metrics = self.metrics(result.answers, references, terms.house_terms)
        return metrics | {PERPLEXITY: perplexity(result.scores)}

    def _row_metrics(
        self, result: ModelResult, rows: list[HeldOutRow], terms: SpecialistTerms
    ) -> list[dict[str, float]]:
        """The metrics of each answer."""
        return [
            self._scores(ModelResult((answer,), (score,)), [row], terms)
            for answer, score, row in zip(result.answers, result.scores, rows, strict=True)
        ]

    def _parity(self, adapter: Adapter) -> dict[str, float]:
        loaded = self.call(lambda: self.models.load(adapter.digest, adapter.manifest))
        return {} if loaded.parity is None else {PARITY: loaded.parity}

    def _model_results(
        self, evaluation: Evaluation, rows: list[HeldOutRow], incumbent: Serving | None
    ) -> dict[str, ModelResult]:
        """The result of each model. An incumbent with a result on the same rows is not asked again."""
        adapter, key = evaluation.adapter, self.parameters.key(rows)
        has_incumbent = incumbent is not None and incumbent.adapter_digest
        self.evaluations.start(evaluation.evaluation_id, (3 if has_incumbent else 2) * len(rows))
        runner = _ModelRunner(self, evaluation.evaluation_id, rows, key)
        results = {
            BASE: runner.result(BASE, lambda: BASE),
            CANDIDATE: runner.result(adapter.model, lambda: self.models.load(adapter.digest, adapter.manifest).model),
        }
        if incumbent is None or not incumbent.adapter_digest:
            return results
        digest, manifest = incumbent.adapter_digest, incumbent.manifest
        known = results[CANDIDATE] if digest == adapter.digest else self.results.find_for_adapter(digest, key)
        if known is None and manifest is not None:
            known = runner.result(f"adapter:{digest}", lambda: self.models.load(digest, manifest).model)
        if known is not None:
            results[INCUMBENT] = known
        return results


class _ModelRunner:
    """Runs the rows of one evaluation through one model after another, and counts progress."""

    def __init__(self, worker: EvaluationWorker, evaluation_id: str, rows: list[HeldOutRow], key: str) -> None:
        self._worker = worker
        self._evaluation_id = evaluation_id
        self._rows = rows
        self._key = key
        self._done = 0

    def result(self, model: str, load: Callable[[], str]) -> ModelResult:
        """The stored result of a model, or else a new one, which is stored. `load` loads the model and returns its name."""
        results = self._worker.results
        result = results.find(self._evaluation_id, model, self._key)
        if result is None:
            result = self._run(self._worker.call(load))
            results.add(self._evaluation_id, model, self._key, result)
        else:
            self._count(len(self._rows))
        return result

    def _run(self, model: str) -> ModelResult:
        parameters = self._worker.parameters
        try:
            # In parallel, so that the engine can batch the requests.
            with ThreadPoolExecutor(parameters.concurrency, thread_name_prefix="ask") as pool:
                answers = tuple(pool.map(lambda row: self._generate(model, row, parameters.max_tokens), self._rows))
            scores = tuple(self._score(model, row) for row in self._rows)
        except NotFound:
            # Inference has restarted since the candidate was loaded.
            raise Unavailable(Reason.CANDIDATE_LOST, "Inference has unloaded the candidate.") from None
        return ModelResult(answers, scores)

    def _generate(self, model: str, row: HeldOutRow, max_tokens: int) -> str:
        return self._worker.call(lambda: self._worker.models.generate(model, row.messages, max_tokens))

    def _score(self, model: str, row: HeldOutRow) -> Score:
        """Score one row at a time: a batch of prompt log-probabilities can kill an engine."""
        score = self._worker.call(lambda: self._worker.models.score(model, row.messages, row.reference))
        self._count(1)
        return score

    def _count(self, rows: int) -> None:
        self._done += rows
        self._worker.evaluations.count(self._evaluation_id, self._done)
