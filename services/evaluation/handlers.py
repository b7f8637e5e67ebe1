"""What evaluation does on each event and command, and what its worker does."""

import threading
import time
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
    Comparison,
    Evaluation,
    HeldOutRow,
    Loaded,
    Measured,
    Metrics,
    Models,
    Parameters,
    Reports,
    Repository,
    Result,
    Rows,
    Score,
    Serving,
    Terms,
    choose_rows,
    perplexity,
)
from tailor.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Reason, TailorError, Unavailable
from tailor.logging import get_logger
from tailor.storage.ref import Ref

log = get_logger(__name__)

T = TypeVar("T")

CALL_ATTEMPTS = 5


@dataclass(frozen=True)
class Patience:
    """How long the worker tries: seconds for one evaluation while something does not answer, and starts before it is given up."""

    give_up_seconds: float = 3600
    max_starts: int = 10


@dataclass(frozen=True)
class Evaluating:
    """What the handlers work with. `terms` and `serving` are tables by specialist; `erased` holds the ids of erased documents."""

    repository: Repository
    models: Models
    rows: Rows
    metrics: Metrics
    reports: Reports
    parameters: Parameters = field(default_factory=Parameters)
    patience: Patience = field(default_factory=Patience)
    terms: dict[str, Terms] = field(default_factory=dict)
    serving: dict[str, Serving] = field(default_factory=dict)
    erased: Container[str] = frozenset()
    sleep: Callable[[float], object] = time.sleep
    now: Callable[[], float] = time.monotonic


def on_dataset(app: Evaluating, digest: str, manifest: Ref) -> None:
    """A dataset exists: remember where."""
    app.repository.keep_dataset(digest, manifest)


def on_adapter(app: Evaluating, adapter: Adapter, evaluation_id: str) -> None:
    """An adapter that may serve was trained: queue its evaluation."""
    app.repository.keep_adapter(adapter)
    app.repository.queue(evaluation_id, adapter)


def on_serving(app: Evaluating, serving: Serving) -> None:
    """A name means another adapter; older generations are ignored."""
    known = app.serving.get(serving.specialist)
    if known is None or serving.generation > known.generation:
        app.serving[serving.specialist] = serving


def on_terms(app: Evaluating, terms: Terms) -> None:
    """A specialist is new or changed."""
    known = app.terms.get(terms.specialist)
    if known is None or terms.revision > known.revision:
        app.terms[terms.specialist] = terms


def evaluate(app: Evaluating, adapter_digest: str, evaluation_id: str) -> Evaluation:
    """Queue a measurement again; NotFound for an adapter that was never announced."""
    adapter = find_adapter(app, adapter_digest)
    evaluation = app.repository.queue(evaluation_id, adapter)
    if evaluation.adapter.digest != adapter_digest:
        raise AlreadyExists(Reason.REQUEST_ID_REUSED, "This request id was used for another adapter.")
    return evaluation


def find_adapter(app: Evaluating, adapter_digest: str) -> Adapter:
    """An adapter that was announced; NotFound otherwise."""
    adapter = app.repository.adapter(adapter_digest)
    if adapter is None:
        raise NotFound(Reason.UNKNOWN_ADAPTER, "No adapter of this digest was announced.")
    return adapter


def get_evaluation(app: Evaluating, evaluation_id: str, adapter_digest: str) -> Evaluation:
    """An evaluation by its id, or the newest one of an adapter; NotFound, InvalidArgument where neither is named."""
    if not evaluation_id and not adapter_digest:
        raise InvalidArgument(Reason.NOTHING_NAMED, "Name an evaluation or an adapter.")
    found = app.repository.evaluation(evaluation_id) if evaluation_id else app.repository.newest(adapter_digest)
    if found is None:
        raise NotFound(Reason.UNKNOWN_EVALUATION, "There is no such evaluation.")
    return found


def work(app: Evaluating, stop: threading.Event, idle_seconds: float = 1.0) -> None:
    """Measure one evaluation at a time until told to stop; what a killed process left is resumed."""
    while not stop.is_set():
        try:
            busy = work_once(app, stop)
        except TailorError as error:
            if not error.retryable:
                raise
            log.warning("worker waits", reason=error.reason)
            busy = False
        if not busy:
            stop.wait(idle_seconds)


def work_once(app: Evaluating, stop: threading.Event) -> bool:
    """Measure the next evaluation; False where there is none."""
    with app.repository.next() as evaluation:
        if evaluation is None:
            return False
        if evaluation.attempts > app.patience.max_starts:
            app.repository.fail(evaluation.evaluation_id, Reason.STARTED_TOO_OFTEN)
            return True
        try:
            _persist(app, evaluation, stop)
        except TailorError as error:
            if error.retryable and stop.is_set():
                return True
            log.error("evaluation failed", evaluation_id=evaluation.evaluation_id, reason=error.reason)
            app.repository.fail(evaluation.evaluation_id, error.reason)
    return True


def _persist(app: Evaluating, evaluation: Evaluation, stop: threading.Event) -> None:
    """Measure, and again from the stored results while something does not answer."""
    end = app.now() + app.patience.give_up_seconds
    delay = 1.0
    while True:
        try:
            measure(app, evaluation)
        except TailorError as error:
            if not error.retryable or stop.is_set() or app.now() >= end:
                raise
            log.warning("evaluation waits", evaluation_id=evaluation.evaluation_id, reason=error.reason)
            app.sleep(delay)
            delay = min(delay * 2, 15.0)
        else:
            return


def measure(app: Evaluating, evaluation: Evaluation) -> Measured:
    """Measure every model on the same rows, store the report, state the outcome."""
    adapter = evaluation.adapter
    terms = app.terms.get(adapter.specialist)
    if terms is None:
        raise Unavailable(Reason.UNKNOWN_SPECIALIST, "The specialist's definition has not arrived yet.")
    rows = _rows(app, adapter)
    incumbent = app.serving.get(adapter.specialist)
    results = _results(app, evaluation, rows, incumbent)
    references = [row.reference for row in rows]
    scores = {name: _scores(app, result, references, terms) for name, result in results.items()}
    scores[CANDIDATE] |= _parity(app, adapter)
    row_metrics = {
        name: [
            app.metrics([answer], [reference], terms.house_terms) | {PERPLEXITY: perplexity([score])}
            for answer, reference, score in zip(result.answers, references, result.scores, strict=True)
        ]
        for name, result in results.items()
    }
    comparison = Comparison(evaluation, app.parameters, incumbent, rows, results, scores, row_metrics)
    _refuse_erased(app, rows)
    report = app.reports.write(comparison)
    measured = Measured(evaluation, len(rows), scores, incumbent, report)
    app.repository.finish(measured)
    log.info("evaluated", evaluation_id=evaluation.evaluation_id, adapter=adapter.digest, rows=len(rows))
    return measured


def _rows(app: Evaluating, adapter: Adapter) -> list[HeldOutRow]:
    manifest = app.repository.dataset(adapter.dataset_digest)
    if manifest is None:
        raise Unavailable(Reason.UNKNOWN_DATASET, "The dataset has not been announced yet.")
    rows = choose_rows(app.rows.held_out(manifest), app.parameters.max_rows)
    if not rows:
        raise FailedPrecondition(Reason.NO_HELD_OUT_ROWS, "The dataset holds no row back.")
    _refuse_erased(app, rows)
    return rows


def _refuse_erased(app: Evaluating, rows: list[HeldOutRow]) -> None:
    """Nothing is kept of rows of which a document was erased; the dataset that supersedes theirs is measured on instead."""
    if any(document_id in app.erased for row in rows for document_id in row.document_ids):
        raise FailedPrecondition(Reason.ROWS_ERASED, "A document of the held-out rows was erased.")


def _scores(app: Evaluating, result: Result, references: list[str], terms: Terms) -> dict[str, float]:
    return app.metrics(result.answers, references, terms.house_terms) | {PERPLEXITY: perplexity(result.scores)}


def _parity(app: Evaluating, adapter: Adapter) -> dict[str, float]:
    """How far the candidate, as inference holds it, is from what the trainer stored; nothing where it stored nothing."""
    loaded: Loaded = _patiently(app, lambda: app.models.load(adapter.digest, adapter.manifest))
    return {} if loaded.parity is None else {PARITY: loaded.parity}


def _results(
    app: Evaluating, evaluation: Evaluation, rows: list[HeldOutRow], incumbent: Serving | None
) -> dict[str, Result]:
    """Each model's result: stored ones, then measured ones. An incumbent measured on the same rows before is not asked again."""
    beside = incumbent is not None and incumbent.adapter_digest
    app.repository.start(evaluation.evaluation_id, (3 if beside else 2) * len(rows))
    adapter, key = evaluation.adapter, app.parameters.key(rows)
    measuring = _Measuring(app, evaluation.evaluation_id, rows, key)
    results = {
        BASE: measuring.result(BASE, lambda: BASE),
        CANDIDATE: measuring.result(adapter.model, lambda: app.models.load(adapter.digest, adapter.manifest).model),
    }
    if incumbent is None or not incumbent.adapter_digest:
        return results
    digest, manifest = incumbent.adapter_digest, incumbent.manifest
    known = results[CANDIDATE] if digest == adapter.digest else app.repository.result_of_adapter(digest, key)
    if known is None and manifest is not None:
        known = measuring.result(f"adapter:{digest}", lambda: app.models.load(digest, manifest).model)
    if known is not None:
        results[INCUMBENT] = known
    return results


class _Measuring:
    """One evaluation's rows, asked of one model after another; counts what is done."""

    def __init__(self, app: Evaluating, evaluation_id: str, rows: list[HeldOutRow], key: str) -> None:
        self._app = app
        self._evaluation_id = evaluation_id
        self._rows = rows
        self._key = key
        self._done = 0

    def result(self, model: str, ready: Callable[[], str]) -> Result:
        """A model's result, kept as soon as it is whole. `ready` loads the model and says its name."""
        repository = self._app.repository
        known = repository.result(self._evaluation_id, model, self._key)
        if known is None:
            known = self._measure(_patiently(self._app, ready))
            repository.keep_result(self._evaluation_id, model, self._key, known)
        else:
            self._done += len(self._rows)
            repository.count(self._evaluation_id, self._done)
        return known

    def _measure(self, model: str) -> Result:
        models, tokens = self._app.models, self._app.parameters.max_tokens
        try:
            # Asked side by side, so that the engine can batch them.
            with ThreadPoolExecutor(self._app.parameters.concurrency, thread_name_prefix="ask") as pool:
                calls = [
                    pool.submit(_patiently, self._app, lambda row=row: models.generate(model, row.messages, tokens))
                    for row in self._rows
                ]
                answers = tuple(call.result() for call in calls)
            scores = tuple(self._score(model, row) for row in self._rows)
        except NotFound:
            # It restarted since the candidate was loaded.
            raise Unavailable(Reason.CANDIDATE_LOST, "Inference does not hold the candidate any more.") from None
        return Result(answers, scores)

    def _score(self, model: str, row: HeldOutRow) -> Score:
        """One row after another: a batch of prompt log-probabilities can kill an engine."""
        score: Score = _patiently(self._app, lambda: self._app.models.score(model, row.messages, row.reference))
        self._done += 1
        self._app.repository.count(self._evaluation_id, self._done)
        return score


def _patiently(app: Evaluating, call: Callable[[], T]) -> T:
    """The call's result, after a few tries where it is refused for now."""
    for attempt in range(CALL_ATTEMPTS - 1):
        try:
            return call()
        except TailorError as error:
            if not error.retryable:
                raise
            app.sleep(0.5 * 2**attempt)
    return call()
