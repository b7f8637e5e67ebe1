"""Runs the jobs of evaluations: every model on the same held-out rows, every metric with its interval."""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field, replace

from services.evaluation.adapters.rows import StoredHeldOutRows
from services.evaluation.adapters.sql import SqlArtifacts, SqlDefinitions, SqlEvaluations, SqlModelResults
from services.evaluation.baselines.costs import Prices
from services.evaluation.domain import (
    PARITY,
    Adapter,
    Evaluation,
    EvaluationResult,
    EvaluationState,
    HeldOutSet,
    MetricFigures,
    ModelCost,
    ModelResult,
    ReportData,
    RetryLimits,
    Specialists,
    SpecialistTerms,
)
from services.evaluation.figures import fixed_value, list_goals, measure_all, measure_cost
from services.evaluation.judging import JudgeBench
from services.evaluation.metrics.context import MetricContext
from services.evaluation.model_runs import ModelResultsOf, ModelRunner
from services.evaluation.ports import (
    EvaluatedModel,
    ListModels,
    MetricServices,
    Models,
)
from services.evaluation.report import ReportStore
from services.evaluation.served_models import call
from services.evaluation.suites.runner import SuiteRunner
from tailor.errors import FailedPrecondition, NotFound, Reason, TailorError
from tailor.jobs import HeldJob
from tailor.logging import get_logger
from tailor.retry import retry

log = get_logger(__name__)

# How often an evaluation looks for the event that it waits for.
WAIT_SECONDS = 1.0


@dataclass(frozen=True)
class EvaluationWorker:
    """Evaluates adapters. `erased` holds the ids of erased documents."""

    artifacts: SqlArtifacts
    evaluations: SqlEvaluations
    results: SqlModelResults
    models: Models
    list_models: ListModels
    rows: StoredHeldOutRows
    reports: ReportStore
    specialists: Specialists
    judging: JudgeBench
    definitions: SqlDefinitions
    services: MetricServices | None = None
    prices: Prices = field(default_factory=Prices)
    suites: SuiteRunner | None = None
    concurrency: int = 8
    limits: RetryLimits = field(default_factory=RetryLimits)
    erased: Container[str] = frozenset()
    sleep: Callable[[float], None] | None = None

    def run(self, job: HeldJob) -> float | None:
        """Run the job of an evaluation (a `jobs.Handle`): until it succeeds or fails, or a second later if it waits for an event.

        Retries while a dependency does not answer. An evaluation that cannot succeed fails with its reason.
        """
        evaluation = self.evaluations.newest(evaluation_id=job.key)
        if evaluation is None or not evaluation.state.is_open:
            return None
        waited = job.payload.get("waited", 0.0)
        missing = self._missing_event(evaluation.adapter)
        if missing is not None and waited < self.limits.give_up_seconds:
            if not waited:
                log.warning("evaluation waits", evaluation_id=job.key, reason=missing)
            job.payload["waited"] = waited + WAIT_SECONDS
            return WAIT_SECONDS
        try:
            self._evaluate_or_retry(job, evaluation)
        except TailorError as error:
            log.error("evaluation failed", evaluation_id=job.key, reason=error.reason)
            self.evaluations.record(job, state=EvaluationState.FAILED, reason=error.reason)
        return None

    def _evaluate_or_retry(self, job: HeldJob, evaluation: Evaluation) -> None:
        if job.attempts > self.limits.max_starts:
            raise FailedPrecondition(Reason.STARTED_TOO_OFTEN, "The evaluation was started too often.")

        def log_wait(error: TailorError, attempt: int) -> None:
            log.warning("evaluation waits", evaluation_id=job.key, reason=error.reason)

        retry(
            lambda: self.evaluate(job, evaluation),
            stop=job.stop,
            give_up_seconds=self.limits.give_up_seconds,
            initial_seconds=1.0,
            max_seconds=15.0,
            on_wait=log_wait,
            sleep=self.sleep,
        )

    def _missing_event(self, adapter: Adapter) -> Reason | None:
        """Why the adapter cannot be evaluated before another event arrives."""
        terms = self.specialists.terms.get(adapter.specialist)
        if terms is None:
            return Reason.UNKNOWN_SPECIALIST
        is_known = terms.deleted or self.artifacts.datasets.has(digest=adapter.dataset_digest)
        return None if is_known else Reason.UNKNOWN_DATASET

    def evaluate(self, job: HeldJob, evaluation: Evaluation) -> EvaluationResult:
        """Evaluate every model on the same rows, store the report and publish the result.

        Continues from stored results. Raises Unavailable if a dependency does not answer, and FailedPrecondition if the evaluation
        cannot succeed or an event has not arrived.
        """
        adapter = evaluation.adapter
        terms = self.specialists.terms.get(adapter.specialist)
        if terms is None:
            raise FailedPrecondition(Reason.UNKNOWN_SPECIALIST, "The specialist's definition has not arrived.")
        if terms.deleted:
            raise FailedPrecondition(
                Reason.SPECIALIST_DELETED, "The specialist was deleted. Create it again to evaluate its adapters."
            )
        held_out = self._held_out(adapter, terms)
        incumbent = self.specialists.serving.get(adapter.specialist)
        models = self.list_models(adapter, terms, incumbent, held_out)
        suite_results = self._runner(job, terms, held_out).run_all(models)
        data = self._measure(
            ReportData(evaluation, terms, incumbent, suite_results.held_out, suite_results.results), suite_results
        )
        data = self._run_suites(job, data, models)
        self._check_not_erased(held_out)
        result = self._store(data)
        self.evaluations.finish(job, result)
        log.info("evaluated", evaluation_id=evaluation.evaluation_id, adapter=adapter.digest, rows=result.rows)
        return result

    def _runner(self, job: HeldJob, terms: SpecialistTerms, held_out: HeldOutSet) -> ModelRunner:
        return ModelRunner(
            self.evaluations,
            self.results,
            job,
            held_out,
            terms.sampling,
            concurrency=self.concurrency,
            sleep=self.sleep,
        )

    def _measure(self, data: ReportData, results: ModelResultsOf) -> ReportData:
        terms = data.terms
        judging = self.judging.prepare(data.evaluation.adapter, terms)
        context = MetricContext(
            house_terms=terms.house_terms,
            guidelines=terms.evaluation.guidelines,
            criteria=terms.evaluation.criteria,
            judge=judging.judge,
            services=self.services,
        )
        figures = measure_all(terms, data.held_out, results.results, context)
        figures = judging.apply(figures, terms.evaluation.min_judge_agreement)
        return replace(
            data,
            metrics=figures.metrics,
            suites=self._suites(data.evaluation.adapter),
            costs=tuple(self._cost(model, result) for model, result in results.results.items()),
            not_measured={**figures.not_measured, **results.skipped},
            counts=figures.counts,
            row_values=figures.row_values,
            definitions=self.definitions.freeze(terms),
            goals=tuple(list_goals(terms.metrics, figures.metrics)),
            judge_tokens=judging.judge.tokens if judging.judge else 0,
        )

    def _cost(self, model: str, result: ModelResult) -> ModelCost:
        return self.prices.add_to(measure_cost(model, result), result, self.concurrency)

    def _run_suites(self, job: HeldJob, data: ReportData, models: Sequence[EvaluatedModel]) -> ReportData:
        """Measure the suites on the dataset of the documents that the adapter, or an earlier stage, learned from."""
        if self.suites is None:
            return data
        adapter = data.evaluation.adapter
        known = (
            self.artifacts.datasets.find(digest=ancestor.dataset_digest)
            for ancestor in (adapter, *self.artifacts.ancestors(adapter))
        )
        measured = self.suites.run(job, data, models, [dataset.manifest for dataset in known if dataset is not None])
        return replace(
            data,
            suites=(*data.suites, *measured.figures),
            not_measured={**data.not_measured, **measured.not_measured},
            suite_details=measured.details,
            suite_seconds=measured.seconds,
        )

    def _store(self, data: ReportData) -> EvaluationResult:
        incumbent = self.artifacts.adapters.find(digest=data.incumbent.adapter_digest) if data.incumbent else None
        return replace(
            data.to_result(self.reports.write(data)),
            preference_dataset_digest=self._preferences(data.evaluation.adapter),
            incumbent_preference_dataset_digest=self._preferences(incumbent) if incumbent else "",
        )

    def _suites(self, adapter: Adapter) -> tuple[MetricFigures, ...]:
        """Parity, if the trainer stored probe scores."""
        models = self.models.on_base(adapter.base)
        loaded = call(lambda: models.load(adapter.digest, adapter.manifest), self.sleep)
        return () if loaded.parity is None else (fixed_value(PARITY, loaded.parity, lower_is_better=True),)

    def _held_out(self, adapter: Adapter, terms: SpecialistTerms) -> HeldOutSet:
        """The held-out rows of documents and the held-out pairs, as far as there are any of both.

        They are those of the datasets that the adapter, or an earlier stage, learned from. Without pairs among them, those of the
        specialist's newest ranked drafts, so that an adapter that experts' rankings did not reach is measured on them too.
        """
        held_out = self._read_rows(adapter.dataset_digest, terms)
        if held_out is None:
            raise FailedPrecondition(Reason.UNKNOWN_DATASET, "The adapter's dataset has not been announced.")
        if held_out.has_pairs:
            known = (
                adapter.sft_dataset_digest,
                *(ancestor.dataset_digest for ancestor in self.artifacts.ancestors(adapter)),
            )
            earlier = (self._read_rows(digest, terms) for digest in known)
            documents = next((rows for rows in earlier if rows and rows.rows and not rows.has_pairs), None)
            held_out = held_out.add_documents(documents) if documents else held_out
        elif held_out.rows:
            pairs = self._read_pairs(adapter, terms)
            held_out = pairs.add_documents(held_out) if pairs and pairs.has_pairs else held_out
        if not held_out.rows:
            raise FailedPrecondition(Reason.NO_HELD_OUT_ROWS, "The dataset has no held-out rows.")
        self._check_not_erased(held_out)
        return held_out

    def _read_rows(self, digest: str, terms: SpecialistTerms) -> HeldOutSet | None:
        dataset, policy = self.artifacts.datasets.find(digest=digest), terms.evaluation
        return None if dataset is None else self.rows.held_out(dataset.manifest, policy.max_rows, policy.max_answers)

    def _read_pairs(self, adapter: Adapter, terms: SpecialistTerms) -> HeldOutSet | None:
        """The pairs of an adapter whose last stage learned from documents; None if there are none, or an erasure deleted them."""
        newest = self.artifacts.datasets.newest(ranked_for=adapter.specialist)
        try:
            return self._read_rows(self._preferences(adapter) or (newest.digest if newest else ""), terms)
        except NotFound:
            return None

    def _preferences(self, adapter: Adapter) -> str:
        """The preference dataset that the adapter, or one below it, learned from; empty if there is none."""
        chain = (adapter, *self.artifacts.ancestors(adapter))
        return next(
            (ancestor.preference_dataset_digest for ancestor in chain if ancestor.preference_dataset_digest), ""
        )

    def _check_not_erased(self, held_out: HeldOutSet) -> None:
        """Raise FailedPrecondition for rows of an erased document. The dataset that supersedes theirs is evaluated instead."""
        if any(document_id in self.erased for row in held_out.rows for document_id in row.document_ids):
            raise FailedPrecondition(Reason.ROWS_ERASED, "A document behind the held-out rows was erased.")
