"""The queue of evaluations and the evaluator, over fakes."""

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
from tests.unit.evaluation.fakes import MemoryDatasets, make_adapter, make_evaluator, make_row, silence

RUNNING = threading.Event()


def queue(evaluator: Any, evaluation_id: str = "evl_1", digest: str = "ad1") -> None:
    handlers.queue_evaluation(evaluator.artifacts, evaluator.evaluations, make_adapter(digest), evaluation_id)


def evaluate(evaluator: Any, evaluation_id: str = "evl_1", digest: str = "ad1") -> EvaluationResult:
    queue(evaluator, evaluation_id, digest)
    assert evaluator.evaluate_next(RUNNING)
    result: EvaluationResult | None = evaluator.evaluations.result(evaluation_id)
    assert result is not None
    return result


def find(evaluator: Any, evaluation_id: str = "evl_1") -> Any:
    return evaluator.evaluations.evaluations[evaluation_id]


def make_serving(digest: str = "ad0", generation: int = 1) -> Serving:
    return Serving("reports", generation, digest, Ref(f"s3://models/adapters/{digest}/manifest.json", digest, 1))


def make_specialists(serving: Serving) -> Specialists:
    specialists: Specialists = make_evaluator().specialists
    specialists.update_serving(serving)
    return specialists


def crash(digest: str, manifest: Ref) -> None:
    raise SystemError("killed")


def again(evaluator: Any, adapter_digest: str, evaluation_id: str) -> Any:
    return handlers.evaluate_again(evaluator.artifacts, evaluator.evaluations, adapter_digest, evaluation_id)


def test_evaluates_base_and_candidate_on_the_same_rows() -> None:
    evaluator = make_evaluator()
    result = evaluate(evaluator)
    assert result.scores["base"]["rougeL"] == 0 and result.scores["candidate"]["rougeL"] == 1
    assert result.scores["base"]["perplexity"] == pytest.approx(7.389, abs=1e-3)
    assert result.scores["candidate"]["perplexity"] == pytest.approx(2.718, abs=1e-3)
    assert (result.rows, result.incumbent, set(result.scores)) == (4, None, {"base", "candidate"})
    assert evaluator.models.calls.count("base") == evaluator.models.calls.count("adapter:ad1") == 4
    assert evaluator.evaluations.counts[-1] == find(evaluator).rows_total == 8


def test_evaluates_the_incumbent_on_the_same_rows() -> None:
    evaluator = make_evaluator(specialists=make_specialists(make_serving()))
    result = evaluate(evaluator)
    assert result.incumbent == make_serving()
    assert {**result.scores["incumbent"], "parity": 0.01} == result.scores["candidate"]
    assert evaluator.models.loaded == {"adapter:ad0", "adapter:ad1"}


def test_parity_is_a_score_of_the_candidate_only() -> None:
    evaluator = make_evaluator()
    evaluator.models.parity = 0.25
    result = evaluate(evaluator)
    assert result.scores["candidate"]["parity"] == 0.25
    assert "parity" not in result.scores["base"]
    assert "0.2500 nats per token" in evaluator.reports.markdown(result.report)


def test_the_report_says_that_parity_was_not_measured() -> None:
    evaluator = make_evaluator()
    evaluator.models.parity = None
    result = evaluate(evaluator)
    assert "parity" not in result.scores["candidate"]
    assert "was not measured" in evaluator.reports.markdown(result.report)


def test_an_incumbent_with_results_on_the_same_rows_is_not_called_again() -> None:
    evaluator = make_evaluator()
    evaluate(evaluator, "evl_1", "ad0")
    evaluator.specialists.update_serving(make_serving())
    result = evaluate(evaluator, "evl_2", "ad1")
    assert "incumbent" in result.scores
    assert evaluator.models.calls.count("adapter:ad0") == 4


def test_a_name_that_refers_to_the_base_has_a_generation() -> None:
    serving = Serving("reports", 3, "")
    result = evaluate(make_evaluator(specialists=make_specialists(serving)))
    assert (result.incumbent, set(result.scores)) == (serving, {"base", "candidate"})


def test_older_generations_and_revisions_are_ignored() -> None:
    evaluator = make_evaluator()
    evaluator.specialists.update_serving(make_serving("new", 2))
    evaluator.specialists.update_serving(make_serving("old", 1))
    assert evaluator.specialists.serving["reports"].adapter_digest == "new"


def test_continues_when_inference_answers_again() -> None:
    evaluator = make_evaluator()
    evaluator.models.failures = [silence() for _ in range(12)]
    assert evaluate(evaluator).scores["candidate"]["rougeL"] == 1


def test_a_candidate_that_inference_unloaded_is_loaded_again() -> None:
    evaluator = make_evaluator()
    evaluator.models.loaded.add("adapter:ad1")
    generate = evaluator.models.generate

    def generate_once_unloaded(model: str, messages: object, tokens: int) -> Any:
        if model != "base" and "unloaded" not in evaluator.models.scored:
            evaluator.models.scored.append("unloaded")
            raise NotFound(Reason.UNKNOWN_MODEL, "There is no such model.")
        return generate(model, messages, tokens)

    evaluator.models.generate = generate_once_unloaded
    assert evaluate(evaluator).scores["candidate"]["rougeL"] == 1


def test_a_killed_evaluation_continues_from_stored_results() -> None:
    evaluator = make_evaluator()
    load, evaluator.models.load = evaluator.models.load, crash
    queue(evaluator)
    with pytest.raises(SystemError):
        evaluator.evaluate_next(RUNNING)
    assert find(evaluator).state is EvaluationState.RUNNING
    evaluator.models.load = load
    assert evaluator.evaluate_next(RUNNING)
    assert find(evaluator).state is EvaluationState.SUCCEEDED
    assert evaluator.evaluations.outcomes["evl_1"].scores["candidate"]["parity"] == 0.01
    assert evaluator.models.calls.count("base") == 4


def test_an_evaluation_that_always_crashes_fails_after_max_starts() -> None:
    evaluator = make_evaluator()
    evaluator.models.load = crash
    queue(evaluator)
    for _ in range(3):
        with pytest.raises(SystemError):
            evaluator.evaluate_next(RUNNING)
    assert evaluator.evaluate_next(RUNNING)
    assert find(evaluator).reason == "STARTED_TOO_OFTEN"


def test_an_evaluation_that_cannot_succeed_fails_with_its_reason() -> None:
    evaluator = make_evaluator(datasets=MemoryDatasets([]))
    queue(evaluator)
    assert evaluator.evaluate_next(RUNNING)
    assert (find(evaluator).state, find(evaluator).reason) == (
        EvaluationState.FAILED,
        "NO_HELD_OUT_ROWS",
    )
    bad = make_evaluator()
    bad.models.failures = [FailedPrecondition(Reason.WRONG_BASE, "Another base.")] * 2
    queue(bad)
    bad.evaluate_next(RUNNING)
    assert find(bad).reason == "WRONG_BASE"


def test_waiting_for_a_dependency_ends_after_a_while() -> None:
    pauses = list[float]()

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        time.sleep(0.02)

    evaluator = make_evaluator(limits=RetryLimits(give_up_seconds=0.1), sleep=sleep)
    evaluator.artifacts.datasets.clear()
    queue(evaluator)
    evaluator.evaluate_next(RUNNING)
    assert find(evaluator).reason == "UNKNOWN_DATASET" and len(pauses) > 1


def test_an_interrupted_evaluation_stays_open_for_the_next_start() -> None:
    evaluator, stop = make_evaluator(), threading.Event()
    evaluator.artifacts.datasets.clear()
    stop.set()
    queue(evaluator)
    assert evaluator.evaluate_next(stop)
    assert find(evaluator).state is EvaluationState.QUEUED


def test_an_adapter_is_evaluated_once_and_again_only_on_command() -> None:
    evaluator = make_evaluator()
    evaluate(evaluator)
    queue(evaluator)
    assert not evaluator.evaluate_next(RUNNING)
    assert again(evaluator, "ad1", "evl_2").state is EvaluationState.QUEUED
    assert handlers.find_evaluation(evaluator.evaluations, "", "ad1").evaluation_id == "evl_2"
    queue(evaluator, "evl_3", "ad2")
    with pytest.raises(AlreadyExists):
        again(evaluator, "ad2", "evl_2")


def test_unknown_adapters_and_evaluations_are_not_found() -> None:
    evaluator = make_evaluator()
    with pytest.raises(NotFound):
        again(evaluator, "ad9", "evl_1")
    with pytest.raises(NotFound):
        handlers.find_evaluation(evaluator.evaluations, "evl_9", "")
    with pytest.raises(InvalidArgument):
        handlers.find_evaluation(evaluator.evaluations, "", "")


def test_rows_are_chosen_evenly_from_all_origins_and_ordered_by_id() -> None:
    rows = [make_row(number) for number in range(10)]
    rows += [make_row(20, "example"), make_row(21, "question"), make_row(22, "question")]
    chosen = choose_rows(rows, 6)
    assert [row.row_id for row in chosen] == ["row_000", "row_001", "row_002", "row_020", "row_021", "row_022"]
    assert len(choose_rows(rows, 99)) == 13 and choose_rows([], 3) == []


def test_perplexity_counts_all_tokens_and_is_finite() -> None:
    assert perplexity([Score(-1.0, 1), Score(-1.0, 3)]) == pytest.approx(1.6487, abs=1e-4)
    assert perplexity([Score(-1e9, 1)]) < float("inf")


def test_the_evaluator_stops_while_it_waits() -> None:
    evaluator, stop = make_evaluator(sleep=None), threading.Event()
    evaluator.artifacts.datasets.clear()
    queue(evaluator)
    thread = threading.Thread(target=evaluator.run, args=(stop,))
    thread.start()
    stop.set()
    thread.join(5)
    assert not thread.is_alive() and find(evaluator).state is EvaluationState.QUEUED
