"""The queue of evaluations and its worker, over fakes."""

import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from services.evaluation import handlers, wire
from services.evaluation.domain import (
    EvaluationResult,
    EvaluationState,
    HeldOutRow,
    RetryLimits,
    Serving,
    Specialists,
    choose_rows,
    spread_rows,
)
from services.evaluation.served_models import BaseModel, ServedModels
from tailor.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Reason
from tailor.storage.ref import Ref
from tailor.values import EvaluationPolicy, SamplingDefaults
from tests.unit.evaluation.fakes import (
    MemoryHeldOutRows,
    make_adapter,
    make_pair,
    make_row,
    make_terms,
    make_worker,
    silence,
)

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


def value(result: EvaluationResult, metric: str, model: str) -> float:
    (figures,) = (figures for figures in (*result.metrics, *result.suites) if figures.metric == metric)
    return figures.models[model].value


def models_of(result: EvaluationResult) -> set[str]:
    return set(result.metrics[0].models)


def test_evaluates_base_and_candidate_on_the_same_rows() -> None:
    worker = make_worker()
    result = evaluate(worker)
    assert value(result, "rougeL", "base") == 0 and value(result, "rougeL", "candidate") == 1
    assert value(result, "perplexity", "base") == pytest.approx(7.389, abs=1e-3)
    assert value(result, "perplexity", "candidate") == pytest.approx(2.718, abs=1e-3)
    assert value(result, "log_likelihood", "candidate") == -1
    assert (result.rows, result.incumbent, models_of(result)) == (4, None, {"base", "candidate"})
    assert worker.models.calls.count("base") == worker.models.calls.count("adapter:ad1") == 4
    assert worker.evaluations.counts[-1] == find(worker).rows_total == 8


def test_evaluates_the_incumbent_on_the_same_rows() -> None:
    worker = make_worker(specialists=make_specialists(make_serving()))
    result = evaluate(worker)
    assert result.incumbent == make_serving()
    assert all(figures.models["incumbent"] == figures.models["candidate"] for figures in result.metrics)
    assert all(figures.gains["incumbent"].value == 0 for figures in result.metrics)
    assert worker.models.loaded == {"adapter:ad0", "adapter:ad1"}


def test_parity_is_a_score_of_the_candidate_only() -> None:
    worker = make_worker()
    worker.models.parity = 0.25
    result = evaluate(worker)
    assert value(result, "parity", "candidate") == 0.25
    assert set(result.suites[0].models) == {"candidate"}
    assert "0.2500 nats per token" in worker.reports.markdown(result.report)


def test_the_report_says_that_parity_was_not_measured() -> None:
    worker = make_worker()
    worker.models.parity = None
    result = evaluate(worker)
    assert result.suites == ()
    assert "was not measured" in worker.reports.markdown(result.report)


def test_an_incumbent_with_results_on_the_same_rows_is_not_called_again() -> None:
    worker = make_worker()
    evaluate(worker, "evl_1", "ad0")
    worker.specialists.update_serving(make_serving())
    result = evaluate(worker, "evl_2", "ad1")
    assert "incumbent" in models_of(result)
    assert worker.models.calls.count("adapter:ad0") == 4


def test_a_name_that_refers_to_the_base_has_a_generation() -> None:
    serving = Serving("reports", 3, "")
    result = evaluate(make_worker(specialists=make_specialists(serving)))
    assert (result.incumbent, models_of(result)) == (serving, {"base", "candidate"})


def test_older_generations_and_revisions_are_ignored() -> None:
    worker = make_worker()
    worker.specialists.update_serving(make_serving("new", 2))
    worker.specialists.update_serving(make_serving("old", 1))
    assert worker.specialists.serving["reports"].adapter_digest == "new"


def test_continues_when_inference_answers_again() -> None:
    worker = make_worker()
    worker.models.failures = [silence() for _ in range(12)]
    assert value(evaluate(worker), "rougeL", "candidate") == 1


def test_a_candidate_that_inference_unloaded_is_loaded_again() -> None:
    worker = make_worker()
    worker.models.loaded.add("adapter:ad1")
    generate = worker.models.generate

    def generate_once_unloaded(model: str, messages: object, sampling: object) -> Any:
        if model != "base" and "unloaded" not in worker.models.scored:
            worker.models.scored.append("unloaded")
            raise NotFound(Reason.UNKNOWN_MODEL, "There is no such model.")
        return generate(model, messages, sampling)

    worker.models.generate = generate_once_unloaded
    assert value(evaluate(worker), "rougeL", "candidate") == 1


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
    assert value(worker.evaluations.outcomes["evl_1"], "parity", "candidate") == 0.01
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

    worker = make_worker(limits=RetryLimits(give_up_seconds=1), sleep=sleep)
    worker.models.failures = [silence() for _ in range(1000)]
    queue(worker)
    worker.evaluate_next(RUNNING)
    assert find(worker).reason == "INFERENCE_UNAVAILABLE" and len(pauses) > 1


def test_an_evaluation_that_waits_for_an_event_holds_up_no_other() -> None:
    worker = make_worker(limits=RetryLimits(max_starts=1))
    for number, adapter in enumerate(
        (
            replace(make_adapter("ad1"), dataset_digest="later"),
            replace(make_adapter("ad2"), specialist="later"),
            make_adapter("ad3"),
        ),
        start=1,
    ):
        handlers.queue_evaluation(worker.artifacts, worker.evaluations, adapter, f"evl_{number}")
    assert worker.evaluate_next(RUNNING) and find(worker, "evl_3").state is EvaluationState.SUCCEEDED
    assert not worker.evaluate_next(RUNNING) and not worker.evaluate_next(RUNNING)
    worker.artifacts.add_dataset("later", Ref("s3://datasets/later", "later", 1))
    worker.specialists.terms["later"] = replace(make_terms(), name="later")
    assert worker.evaluate_next(RUNNING) and worker.evaluate_next(RUNNING) and not worker.evaluate_next(RUNNING)
    assert {find(worker, f"evl_{number}").state for number in (1, 2, 3)} == {EvaluationState.SUCCEEDED}


@pytest.mark.parametrize("missing", ["dataset", "specialist"])
def test_waiting_for_an_event_ends_after_a_while(missing: str) -> None:
    worker = make_worker(limits=RetryLimits(give_up_seconds=0.1))
    (worker.artifacts.datasets if missing == "dataset" else worker.specialists.terms).clear()
    queue(worker)
    assert not worker.evaluate_next(RUNNING) and find(worker).state is EvaluationState.QUEUED
    time.sleep(0.1)
    assert worker.evaluate_next(RUNNING)
    assert (find(worker).state, find(worker).reason) == (EvaluationState.FAILED, f"UNKNOWN_{missing.upper()}")


def test_an_interrupted_evaluation_stays_open_for_the_next_start() -> None:
    worker, stop = make_worker(), threading.Event()
    worker.models.failures = [silence() for _ in range(1000)]
    stop.set()
    queue(worker)
    assert worker.evaluate_next(stop) and find(worker).state is EvaluationState.RUNNING
    worker.models.failures.clear()
    assert worker.evaluate_next(RUNNING) and find(worker).state is EvaluationState.SUCCEEDED


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


def test_rows_are_chosen_evenly_from_all_documents_of_a_task() -> None:
    rows = [(f"row_{number:03}", "section", ("doc_long",)) for number in reversed(range(10))]
    rows += [("row_020", "section", ("doc_a",)), ("row_021", "section", ("doc_b",)), ("row_022", "answer", ("doc_a",))]
    rows += [("row_030", "test", ("doc_a",))]
    assert spread_rows(rows, 4) == ["row_000", "row_020", "row_022", "row_030"]
    assert spread_rows(rows, 6) == ["row_000", "row_001", "row_020", "row_021", "row_022", "row_030"]
    assert len(spread_rows(rows, 99)) == 14 and spread_rows([], 3) == []


def test_only_some_rows_are_answered_but_all_are_scored() -> None:
    terms = make_terms(evaluation=EvaluationPolicy(max_rows=3, max_answers=2))
    worker = make_worker(specialists=Specialists({"reports": terms}))
    result = evaluate(worker)
    counts = {figures.metric: figures.models["candidate"].rows for figures in result.metrics}
    assert counts == {"log_likelihood": 3, "rougeL": 2, "perplexity": 3}
    assert (result.rows, result.held_out_rows) == (3, 4)
    assert [cost.answers for cost in result.costs] == [2, 2]
    assert result.costs[0].median_seconds == 0.5 and result.costs[1].answer_tokens == 5


def test_every_model_is_asked_with_the_sampling_of_the_specialist() -> None:
    sampling = SamplingDefaults(temperature=0.7, repetition_penalty=1.1, max_tokens=64)
    worker = make_worker(specialists=Specialists({"reports": make_terms(sampling=sampling)}))
    evaluate(worker)
    assert set(worker.models.samplings) == {sampling}


def test_another_sampling_asks_the_base_again() -> None:
    worker = make_worker()
    evaluate(worker)
    evaluate(worker, "evl_2", "ad2")
    assert worker.models.calls.count("base") == 4
    worker.specialists.update_terms(replace(make_terms(), revision=2, sampling=SamplingDefaults(max_tokens=9)))
    result = evaluate(worker, "evl_3", "ad3")
    assert worker.models.calls.count("base") == 8
    assert result.specialist_revision == 2


def test_a_metric_that_cannot_be_measured_is_named_with_its_reason() -> None:
    worker = make_worker(specialists=Specialists({"reports": make_terms("judge", "rougeL")}))
    result = evaluate(worker)
    assert [figures.metric for figures in result.metrics] == ["log_likelihood", "rougeL"]
    assert "judge model" in result.not_measured["judge"]
    assert "Not measured: judge" in worker.reports.markdown(result.report)


def test_without_metrics_the_built_in_ones_are_measured() -> None:
    terms = replace(make_terms(), metrics=())
    result = evaluate(make_worker(specialists=Specialists({"reports": terms})))
    names = [figures.metric for figures in result.metrics if "." not in figures.metric]
    assert names[0] == "log_likelihood" and {"rougeL", "bleu", "terms", "repetition", "perplexity"} < set(names)
    without_terms = evaluate(make_worker(specialists=Specialists({"reports": replace(terms, house_terms=())})))
    assert "terms" not in {figures.metric for figures in without_terms.metrics}
    assert not without_terms.not_measured.keys() - {"fabrication"}


def forget_rows(worker: Any, *numbers: int) -> None:
    """These rows of the worker no longer fit the context of any model."""
    generate, score = worker.models.generate, worker.models.score

    def check(messages: Any) -> None:
        if any(messages[-1][1] == f"Write {number}." for number in numbers):
            raise InvalidArgument(Reason.ROW_TOO_LONG, "Too long.")

    def checked_generate(model: str, messages: Any, sampling: Any) -> Any:
        check(messages)
        return generate(model, messages, sampling)

    def checked_score(model: str, messages: Any, completion: str) -> Any:
        check(messages)
        return score(model, messages, completion)

    worker.models.generate, worker.models.score = checked_generate, checked_score


def test_rows_that_do_not_fit_the_context_are_skipped_of_every_model_and_counted() -> None:
    worker = make_worker(rows=MemoryHeldOutRows([make_row(number) for number in range(10)]))
    forget_rows(worker, 3, 7)
    result = evaluate(worker)
    assert (result.rows, result.rows_too_long, result.held_out_rows) == (8, 2, 10)
    assert {estimate.rows for figures in result.metrics for estimate in figures.models.values()} == {8}
    assert "Left out: 2 held-out rows" in worker.reports.markdown(result.report)
    assert wire.from_result(result).rows_too_long == 2


def test_an_evaluation_fails_if_too_many_rows_do_not_fit_the_context() -> None:
    worker = make_worker()
    forget_rows(worker, 2)
    queue(worker)
    assert worker.evaluate_next(RUNNING)
    assert find(worker).reason == "HELD_OUT_ROWS_TOO_LONG"


def test_the_base_is_asked_again_after_rows_did_not_fit() -> None:
    worker = make_worker(rows=MemoryHeldOutRows([make_row(number) for number in range(10)]))
    generate, score = worker.models.generate, worker.models.score
    forget_rows(worker, 3)
    evaluate(worker)
    worker.models.generate, worker.models.score = generate, score
    result = evaluate(worker, "evl_2", "ad2")
    assert (result.rows, result.rows_too_long) == (10, 0)


class Stranger(BaseModel):
    """A model without log-probabilities, or one that refuses."""

    refuses = False

    @property
    def name(self) -> str:
        return "external:present"

    @property
    def key(self) -> str:
        return "external:present"

    def prepare(self) -> None:
        if self.refuses:
            raise FailedPrecondition(Reason.INVALID_ARGUMENT, "The endpoint refuses the key.")

    def score(self, row: HeldOutRow, completion: str) -> None:
        return None


class Refusing(Stranger):
    refuses = True


def with_stranger(stranger: type[Stranger]) -> Any:
    worker = make_worker()

    class Source(ServedModels):
        def list_models(self, *arguments: Any) -> Any:
            base, *others = super().list_models(*arguments)
            return [base, stranger(worker.models, "other"), *others]

    return make_worker(models=worker.models, source=Source(worker.models))


def test_a_model_without_log_probabilities_is_measured_by_its_answers() -> None:
    result = evaluate(with_stranger(Stranger))
    figures = {figures.metric: figures for figures in result.metrics}
    assert "external:present" not in figures["log_likelihood"].models
    assert figures["rougeL"].gains["external:present"].value == 1


def test_another_model_that_refuses_is_skipped_with_its_reason() -> None:
    result = evaluate(with_stranger(Refusing))
    assert models_of(result) == {"base", "candidate"}
    assert "refuses the key" in result.not_measured["external:present"]


def test_a_run_on_pairs_is_measured_on_its_pairs_and_on_the_documents_of_an_earlier_stage() -> None:
    worker = make_worker()
    pairs = Ref("s3://datasets/pairs/manifest.json", "1" * 64, 10)
    worker.artifacts.add_dataset("pairs", pairs)
    worker.rows.by_manifest[pairs.uri] = [make_pair(number) for number in range(6)]
    worker.artifacts.add_adapter(make_adapter("ad0"))
    tuned = replace(make_adapter("ad1"), dataset_digest="pairs", parent_digest="ad0")
    handlers.queue_evaluation(worker.artifacts, worker.evaluations, tuned, "evl_1")
    assert worker.evaluate_next(RUNNING)
    result = worker.evaluations.result("evl_1")
    figures = {figures.metric: figures for figures in result.metrics}
    assert figures["win_rate"].models["candidate"].value == 1 and figures["win_rate"].models["base"].value == 0.5
    assert (figures["win_rate"].gains["base"].rows, figures["rougeL"].gains["base"].rows) == (6, 4)
    assert figures["pair_margin"].models["base"].value == 0 < figures["pair_margin"].gains["base"].low
    assert result.rows == 10
    assert worker.models.calls.count("adapter:ad1") == 4


def add_pairs(worker: Any, digest: str, ranked_for: str = "", count: int = 6) -> None:
    manifest = Ref(f"s3://datasets/{digest}/manifest.json", "1" * 64, 10)
    worker.artifacts.add_dataset(digest, manifest, ranked_for)
    worker.rows.by_manifest[manifest.uri] = [make_pair(number) for number in range(count)]


def test_a_run_on_documents_is_measured_on_the_specialists_held_out_pairs_too() -> None:
    worker = make_worker()
    add_pairs(worker, "pairs", "reports")
    result = evaluate(worker)
    figures = {figures.metric: figures for figures in result.metrics}
    assert (figures["win_rate"].gains["base"].rows, figures["rougeL"].gains["base"].rows) == (6, 4)
    assert (result.rows, result.pairs, result.preference_dataset_digest) == (10, 6, "")
    assert (result.held_out_rows, result.held_out_pairs) == (10, 6)
    message = wire.from_result(result)
    read = wire.to_result(message, result.evaluation)
    assert (read.pairs, read.held_out_pairs) == (6, 6)


def test_pairs_of_another_specialist_or_deleted_ones_are_not_measured() -> None:
    worker = make_worker()
    add_pairs(worker, "pairs", "memos")
    assert evaluate(worker).pairs == 0

    def gone(manifest: Ref, max_rows: int, max_answers: int) -> Any:
        if "pairs" in manifest.uri:
            raise NotFound(Reason.UNKNOWN_OBJECT, "There is no such object.")
        return held_out(manifest, max_rows, max_answers)

    worker = make_worker()
    add_pairs(worker, "pairs", "reports")
    held_out, worker.rows.held_out = worker.rows.held_out, gone
    assert evaluate(worker).pairs == 0


def test_an_evaluation_names_what_candidate_and_incumbent_learned_from_experts() -> None:
    worker = make_worker(specialists=make_specialists(make_serving("ad0")))
    add_pairs(worker, "p1", "reports")
    add_pairs(worker, "p2", "reports")
    worker.artifacts.add_adapter(replace(make_adapter("ad0"), preference_dataset_digest="p1"))
    tuned = replace(
        make_adapter("ad1"),
        dataset_digest="p2",
        sft_dataset_digest=make_adapter("ad1").dataset_digest,
        preference_dataset_digest="p2",
    )
    handlers.queue_evaluation(worker.artifacts, worker.evaluations, tuned, "evl_1")
    assert worker.evaluate_next(RUNNING)
    result = worker.evaluations.result("evl_1")
    assert (
        result.preference_dataset_digest,
        result.incumbent_preference_dataset_digest,
        result.pairs,
        result.rows,
    ) == ("p2", "p1", 6, 10)
    message = wire.from_result(result)
    assert (message.preference_dataset_digest, message.incumbent_preference_dataset_digest) == ("p2", "p1")


def test_an_adapter_that_the_next_stage_starts_from_is_evaluated_only_on_request() -> None:
    worker = make_worker()
    part = replace(make_adapter("ad1"), intermediate=True)
    handlers.queue_evaluation(worker.artifacts, worker.evaluations, part, "evl_1")
    assert not worker.evaluate_next(RUNNING)
    again(worker, "ad1", "evl_2")
    assert worker.evaluate_next(RUNNING)


def test_a_run_on_pairs_alone_answers_its_pairs() -> None:
    worker = make_worker()
    worker.rows.rows = [make_pair(number) for number in range(3)]
    figures = {figures.metric: figures for figures in evaluate(worker).metrics}
    assert {"pair_margin", "win_rate", "rougeL", "log_likelihood"} <= set(figures)
    assert figures["rougeL"].models["candidate"].value == 1 and worker.models.calls.count("base") == 3


def test_the_worker_stops_while_it_waits() -> None:
    worker, stop = make_worker(sleep=None), threading.Event()
    worker.artifacts.datasets.clear()
    queue(worker)
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    stop.set()
    thread.join(60)
    assert not thread.is_alive() and find(worker).state is EvaluationState.QUEUED


def test_an_adapter_of_a_deleted_specialist_is_not_evaluated() -> None:
    worker = make_worker(specialists=Specialists({"reports": replace(make_terms(), deleted=True)}))
    queue(worker)
    assert worker.evaluate_next(RUNNING)
    assert find(worker).reason == Reason.SPECIALIST_DELETED
