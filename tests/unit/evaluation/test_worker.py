"""The queue of evaluations and its worker, over fakes."""

import threading
import time
from typing import Any

import pytest

from services.evaluation import handlers
from services.evaluation.domain import (
    EvaluationResult,
    EvaluationState,
    RetryLimits,
    Score,
    Serving,
    Specialists,
    choose_rows,
    perplexity,
)
from tailor.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Reason
from tailor.storage.ref import Ref
from tests.unit.evaluation.fakes import MemoryHeldOutRows, make_adapter, make_worker, silence

RUNNING = threading.Event()


def queue(worker: Any, evaluation_id: str = "evl_1", digest: str = "ad1") -> None:
    handlers.queue_evaluation(worker.artifacts, worker.evaluations, make_adapter(digest), evaluation_id)


def evaluate(worker: Any, evaluation_id: str = "evl_1", digest: str = "ad1") -> EvaluationResult:
    queue(worker, evaluation_id, digest)
    assert worker.evaluate_next(RUNNING)
    result: EvaluationResult | None = worker.evaluations.result(evaluation_id)
    assert result is not None
    return result


def find(worker: Any, evaluation_id: str = "evl_1") -> Any:
    return worker.evaluations.evaluations[evaluation_id]


def make_serving(digest: str = "ad0", generation: int = 1) -> Serving:
    return Serving("reports", generation, digest, Ref(f"s3://models/adapters/{digest}/manifest.json", digest, 1))


def make_specialists(serving: Serving) -> Specialists:
    specialists: Specialists = make_worker().specialists
    specialists.update_serving(serving)
    return specialists


def crash(digest: str, manifest: Ref) -> None:
    raise SystemError("killed")


def again(worker: Any, adapter_digest: str, evaluation_id: str) -> Any:
    return handlers.evaluate_again(worker.artifacts, worker.evaluations, adapter_digest, evaluation_id)


def test_evaluates_base_and_candidate_on_the_same_rows() -> None:
    worker = make_worker()
    result = evaluate(worker)
    assert result.scores["base"]["rougeL"] == 0 and result.scores["candidate"]["rougeL"] == 1
    assert result.scores["base"]["perplexity"] == pytest.approx(7.389, abs=1e-3)
    assert result.scores["candidate"]["perplexity"] == pytest.approx(2.718, abs=1e-3)
    assert (result.rows, result.incumbent, set(result.scores)) == (4, None, {"base", "candidate"})
    assert worker.models.calls.count("base") == worker.models.calls.count("adapter:ad1") == 4
    assert worker.evaluations.counts[-1] == find(worker).rows_total == 8


def test_evaluates_the_incumbent_on_the_same_rows() -> None:
    worker = make_worker(specialists=make_specialists(make_serving()))
    result = evaluate(worker)
    assert result.incumbent == make_serving()
    assert {**result.scores["incumbent"], "parity": 0.01} == result.scores["candidate"]
    assert worker.models.loaded == {"adapter:ad0", "adapter:ad1"}


def test_parity_is_a_score_of_the_candidate_only() -> None:
    worker = make_worker()
    worker.models.parity = 0.25
    result = evaluate(worker)
    assert result.scores["candidate"]["parity"] == 0.25
    assert "parity" not in result.scores["base"]
    assert "0.2500 nats per token" in worker.reports.markdown(result.report)


def test_the_report_says_that_parity_was_not_measured() -> None:
    worker = make_worker()
    worker.models.parity = None
    result = evaluate(worker)
    assert "parity" not in result.scores["candidate"]
    assert "was not measured" in worker.reports.markdown(result.report)


def test_an_incumbent_with_results_on_the_same_rows_is_not_called_again() -> None:
    worker = make_worker()
    evaluate(worker, "evl_1", "ad0")
    worker.specialists.update_serving(make_serving())
    result = evaluate(worker, "evl_2", "ad1")
    assert "incumbent" in result.scores
    assert worker.models.calls.count("adapter:ad0") == 4


def test_a_name_that_refers_to_the_base_has_a_generation() -> None:
    serving = Serving("reports", 3, "")
    result = evaluate(make_worker(specialists=make_specialists(serving)))
    assert (result.incumbent, set(result.scores)) == (serving, {"base", "candidate"})


def test_older_generations_and_revisions_are_ignored() -> None:
    worker = make_worker()
    worker.specialists.update_serving(make_serving("new", 2))
    worker.specialists.update_serving(make_serving("old", 1))
    assert worker.specialists.serving["reports"].adapter_digest == "new"


def test_continues_when_inference_answers_again() -> None:
    worker = make_worker()
    worker.models.failures = [silence() for _ in range(12)]
    assert evaluate(worker).scores["candidate"]["rougeL"] == 1


def test_a_candidate_that_inference_unloaded_is_loaded_again() -> None:
    worker = make_worker()
    worker.models.loaded.add("adapter:ad1")
    generate = worker.models.generate

    def generate_once_unloaded(model: str, messages: object, tokens: int) -> Any:
        if model != "base" and "unloaded" not in worker.models.scored:
            worker.models.scored.append("unloaded")
            raise NotFound(Reason.UNKNOWN_MODEL, "There is no such model.")
        return generate(model, messages, tokens)

    worker.models.generate = generate_once_unloaded
    assert evaluate(worker).scores["candidate"]["rougeL"] == 1


def test_a_killed_evaluation_continues_from_stored_results() -> None:
    worker = make_worker()
    load, worker.models.load = worker.models.load, crash
    queue(worker)
    with pytest.raises(SystemError):
        worker.evaluate_next(RUNNING)
    assert find(worker).state is EvaluationState.RUNNING
    worker.models.load = load
    assert worker.evaluate_next(RUNNING)
    assert find(worker).state is EvaluationState.SUCCEEDED
    assert worker.evaluations.outcomes["evl_1"].scores["candidate"]["parity"] == 0.01
    assert worker.models.calls.count("base") == 4


def test_an_evaluation_that_always_crashes_fails_after_max_starts() -> None:
    worker = make_worker()
    worker.models.load = crash
    queue(worker)
    for _ in range(3):
        with pytest.raises(SystemError):
            worker.evaluate_next(RUNNING)
    assert worker.evaluate_next(RUNNING)
    assert find(worker).reason == "STARTED_TOO_OFTEN"


def test_an_evaluation_that_cannot_succeed_fails_with_its_reason() -> None:
    worker = make_worker(rows=MemoryHeldOutRows([]))
    queue(worker)
    assert worker.evaluate_next(RUNNING)
    assert (find(worker).state, find(worker).reason) == (
        EvaluationState.FAILED,
        "NO_HELD_OUT_ROWS",
    )
    bad = make_worker()
    bad.models.failures = [FailedPrecondition(Reason.WRONG_BASE, "Another base.")] * 2
    queue(bad)
    bad.evaluate_next(RUNNING)
    assert find(bad).reason == "WRONG_BASE"


def test_waiting_for_a_dependency_ends_after_a_while() -> None:
    pauses = list[float]()

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        time.sleep(0.02)

    worker = make_worker(limits=RetryLimits(give_up_seconds=0.1), sleep=sleep)
    worker.artifacts.datasets.clear()
    queue(worker)
    worker.evaluate_next(RUNNING)
    assert find(worker).reason == "UNKNOWN_DATASET" and len(pauses) > 1


def test_an_interrupted_evaluation_stays_open_for_the_next_start() -> None:
    worker, stop = make_worker(), threading.Event()
    worker.artifacts.datasets.clear()
    stop.set()
    queue(worker)
    assert worker.evaluate_next(stop)
    assert find(worker).state is EvaluationState.QUEUED


def test_an_adapter_is_evaluated_once_and_again_only_on_command() -> None:
    worker = make_worker()
    evaluate(worker)
    queue(worker)
    assert not worker.evaluate_next(RUNNING)
    assert again(worker, "ad1", "evl_2").state is EvaluationState.QUEUED
    assert handlers.find_evaluation(worker.evaluations, "", "ad1").evaluation_id == "evl_2"
    queue(worker, "evl_3", "ad2")
    with pytest.raises(AlreadyExists):
        again(worker, "ad2", "evl_2")


def test_unknown_adapters_and_evaluations_are_not_found() -> None:
    worker = make_worker()
    with pytest.raises(NotFound):
        again(worker, "ad9", "evl_1")
    with pytest.raises(NotFound):
        handlers.find_evaluation(worker.evaluations, "evl_9", "")
    with pytest.raises(InvalidArgument):
        handlers.find_evaluation(worker.evaluations, "", "")


def test_rows_are_chosen_evenly_from_all_tasks_and_ordered_by_id() -> None:
    rows = [(f"row_{number:03}", "section") for number in reversed(range(10))]
    rows += [("row_020", "example"), ("row_021", "answer"), ("row_022", "answer")]
    assert choose_rows(rows, 6) == ["row_000", "row_001", "row_002", "row_020", "row_021", "row_022"]
    assert len(choose_rows(rows, 99)) == 13 and choose_rows([], 3) == []


def test_perplexity_counts_all_tokens_and_is_finite() -> None:
    assert perplexity([Score(-1.0, 1), Score(-1.0, 3)]) == pytest.approx(1.6487, abs=1e-4)
    assert perplexity([Score(-1e9, 1)]) < float("inf")


def test_the_worker_stops_while_it_waits() -> None:
    worker, stop = make_worker(sleep=None), threading.Event()
    worker.artifacts.datasets.clear()
    queue(worker)
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    stop.set()
    thread.join(5)
    assert not thread.is_alive() and find(worker).state is EvaluationState.QUEUED
