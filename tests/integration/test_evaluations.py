"""The queue of evaluations and its worker over PostgreSQL: what is measured, stored and published, and what survives."""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from services.evaluation import wire
from services.evaluation.adapters import tables
from services.evaluation.adapters.sql import EVALUATION, SqlDefinitions
from services.evaluation.domain import (
    Agreement,
    Answer,
    EvaluationState,
    HeldOutRow,
    ModelResult,
    RetryLimits,
    Score,
    Serving,
    SpecialistTerms,
)
from services.evaluation.served_models import BaseModel
from tailor.api.common.v1 import common_pb2
from tailor.api.evaluation.v1 import evaluation_pb2
from tailor.api.events.v1 import models_pb2
from tailor.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Reason
from tailor.events.envelope import Event
from tailor.jobs import JobKind, JobLost, Jobs
from tailor.rows import Rows
from tailor.rpc.auth import Caller, set_caller
from tailor.storage.ref import Ref
from tailor.values import EvaluationPolicy, SamplingDefaults
from tailor.wire import from_ref
from tests.databases import Databases
from tests.integration.evaluation_house import (
    CONTEXT,
    House,
    MakeHouse,
    houses,
    make_serving,
    models_of,
    value,
)
from tests.jobs import end_leases
from tests.unit.evaluation.fakes import make_adapter, make_row, make_terms, silence

pytestmark = pytest.mark.integration

SUCCEEDED = (EvaluationState.SUCCEEDED, "")


@pytest.fixture
def make_house(databases: Databases) -> Iterator[MakeHouse]:
    with houses(databases) as make:
        yield make


def crash(digest: str, manifest: Ref) -> None:
    raise SystemError("killed")


def failed(reason: str) -> tuple[EvaluationState, str]:
    return EvaluationState.FAILED, reason


# Events and calls.


def handle(house: House, topic: str, message: models_pb2.AdapterTrained | models_pb2.DatasetBuilt) -> None:
    house.consumers.topics()[topic](Event(topic, "key", message.SerializeToString()))


def announce(
    house: House, digest: str, kind: "models_pb2.AdapterKind.ValueType" = models_pb2.ADAPTER_KIND_POLICY
) -> None:
    manifest = common_pb2.ObjectRef(uri=f"s3://models/adapters/{digest}/manifest.json", sha256=digest, size_bytes=9)
    message = models_pb2.AdapterTrained(
        digest=digest, kind=kind, specialist="reports", dataset_digest="data1", base="b", manifest=manifest
    )
    handle(house, "adapter.trained.v1", message)


def announce_all(house: House) -> None:
    dataset = house.artifacts.datasets.find(digest="data1")
    assert dataset is not None
    handle(house, "dataset.built.v1", models_pb2.DatasetBuilt(digest="data1", manifest=from_ref(dataset.manifest)))
    changed = models_pb2.SpecialistChanged(name="reports", revision=2, house_terms=["line of sight"])
    house.consumers.on_specialist(Event("specialist.changed.v1", "reports", changed.SerializeToString()))


def test_an_adapter_is_evaluated_stored_and_published_once(make_house: MakeHouse) -> None:
    house = make_house()
    announce_all(house)
    for _ in range(2):
        announce(house, "ad1")
    announce(house, "rw1", models_pb2.ADAPTER_KIND_REWARD)
    assert house.run() and not house.run()
    (message,) = house.published()
    assert (message.adapter_digest, message.rows, message.incumbent_generation) == ("ad1", 4, 0)
    figures = {item.metric: item for item in message.metrics}
    assert figures["rougeL"].models["candidate"].value == 1.0 > figures["rougeL"].models["base"].value
    assert figures["rougeL"].gains["base"].low > 0.5
    assert {"log_likelihood", "rougeL", "bleu", "terms", "repetition", "perplexity"} <= set(figures)
    assert set(figures["rougeL"].models) == {"base", "candidate"}
    assert (message.held_out_rows, message.specialist_revision) == (4, 2)
    set_caller(Caller("service", "console"))
    request = evaluation_pb2.GetEvaluationRequest(adapter_digest="ad1")
    response = house.servicer.GetEvaluation(request, CONTEXT)
    assert response.state == evaluation_pb2.EVALUATION_STATE_SUCCEEDED
    assert response.rows_done == response.rows_total == 8
    assert response.result == message and response.plot_png.startswith(b"\x89PNG")
    assert "| rougeL |" in response.report_markdown
    # To callers of other specialists it does not exist.
    set_caller(Caller("key", "somebody", "ROLE_ENGINEER", frozenset({"others"})))
    with pytest.raises(NotFound):
        house.servicer.GetEvaluation(request, CONTEXT)
    with pytest.raises(NotFound):
        house.servicer.Evaluate(evaluation_pb2.EvaluateRequest(adapter_digest="ad1"), CONTEXT)


def test_an_adapter_is_evaluated_again_on_command_with_the_incumbent(make_house: MakeHouse) -> None:
    house = make_house()
    announce_all(house)
    for digest in ("ad0", "ad1"):
        announce(house, digest)
        assert house.run()
    manifest = common_pb2.ObjectRef(uri="s3://models/x")
    for generation, digest in ((4, "ad0"), (3, "older")):
        serving = models_pb2.SpecialistServing(
            specialist="reports", generation=generation, adapter_digest=digest, manifest=manifest
        )
        house.consumers.on_serving(Event("specialist.serving.v1", "reports", serving.SerializeToString()))
    set_caller(Caller("service", "registry"))
    request = evaluation_pb2.EvaluateRequest(adapter_digest="ad1", request_id="again")
    evaluation_id = house.servicer.Evaluate(request, CONTEXT).evaluation_id
    assert house.servicer.Evaluate(request, CONTEXT).evaluation_id == evaluation_id
    newest = house.servicer.GetEvaluation(evaluation_pb2.GetEvaluationRequest(adapter_digest="ad1"), CONTEXT)
    assert newest.evaluation_id == evaluation_id
    assert house.run()
    *_, message = house.published()
    assert (message.evaluation_id, message.incumbent_digest, message.incumbent_generation) == (evaluation_id, "ad0", 4)
    rouge = next(item for item in message.metrics if item.metric == "rougeL")
    assert (rouge.models["incumbent"].value, rouge.gains["incumbent"].value) == (1.0, 0.0)
    # The incumbent has results on the same rows.
    assert house.models.calls.count("adapter:ad0") == 4
    other = evaluation_pb2.EvaluateRequest(adapter_digest="ad0", request_id="again")
    with pytest.raises(AlreadyExists):
        house.servicer.Evaluate(other, CONTEXT)
    # The registry derives its request ids from public facts: another caller must not be able to take them first.
    set_caller(Caller("key", "anna", "ROLE_ENGINEER", key_id="key_1"))
    assert house.servicer.Evaluate(other, CONTEXT).evaluation_id != evaluation_id
    with pytest.raises(NotFound):
        house.servicer.Evaluate(evaluation_pb2.EvaluateRequest(adapter_digest="ad9"), CONTEXT)
    with pytest.raises(NotFound):
        house.servicer.GetEvaluation(evaluation_pb2.GetEvaluationRequest(evaluation_id="evl_9"), CONTEXT)
    with pytest.raises(InvalidArgument):
        house.servicer.GetEvaluation(evaluation_pb2.GetEvaluationRequest(), CONTEXT)


# What is measured.


def test_base_incumbent_and_candidate_are_measured_on_the_same_rows(make_house: MakeHouse) -> None:
    sampling = SamplingDefaults(temperature=0.7, repetition_penalty=1.1, max_tokens=64)
    house = make_house()
    house.change_terms(sampling=sampling)
    house.specialists.update_serving(make_serving())
    house.models.parity = 0.25
    result = house.evaluate()
    assert value(result, "rougeL", "base") == 0 and value(result, "rougeL", "candidate") == 1
    assert value(result, "perplexity", "base") == pytest.approx(7.389, abs=1e-3)
    assert value(result, "perplexity", "candidate") == pytest.approx(2.718, abs=1e-3)
    assert value(result, "log_likelihood", "candidate") == -1
    assert (result.rows, result.incumbent) == (4, replace(make_serving(), manifest=None))
    assert all(figures.models["incumbent"] == figures.models["candidate"] for figures in result.metrics)
    assert all(figures.gains["incumbent"].value == 0 for figures in result.metrics)
    assert [house.models.calls.count(model) for model in ("base", "adapter:ad0", "adapter:ad1")] == [4, 4, 4]
    assert house.models.loaded == {"adapter:ad0", "adapter:ad1"} and set(house.models.samplings) == {sampling}
    assert house.find().rows_done == house.find().rows_total == 12
    # Parity is the candidate's only.
    assert value(result, "parity", "candidate") == 0.25 and set(result.suites[0].models) == {"candidate"}
    assert "0.2500 nats per token" in house.page(result)


def test_without_an_adapter_or_parity_the_name_has_a_generation_and_the_report_says_so(make_house: MakeHouse) -> None:
    house = make_house()
    house.specialists.update_serving(Serving("reports", 3, ""))
    house.models.parity = None
    result = house.evaluate()
    assert (result.incumbent, models_of(result)) == (Serving("reports", 3, ""), {"base", "candidate"})
    assert result.suites == () and "was not measured" in house.page(result)


def test_another_sampling_asks_the_base_again_and_the_same_one_does_not(make_house: MakeHouse) -> None:
    house = make_house()
    house.evaluate()
    house.evaluate("evl_2", "ad2")
    assert house.models.calls.count("base") == 4
    house.specialists.update_terms(replace(make_terms(), revision=2, sampling=SamplingDefaults(max_tokens=9)))
    assert house.evaluate("evl_3", "ad3").specialist_revision == 2
    assert house.models.calls.count("base") == 8


def test_only_some_rows_are_answered_but_all_are_scored(make_house: MakeHouse) -> None:
    house = make_house()
    house.change_terms(evaluation=EvaluationPolicy(max_rows=3, max_answers=2))
    result = house.evaluate()
    counts = {figures.metric: figures.models["candidate"].rows for figures in result.metrics}
    assert counts == {"log_likelihood": 3, "rougeL": 2, "perplexity": 3}
    assert (result.rows, result.held_out_rows) == (3, 4)
    assert [cost.answers for cost in result.costs] == [2, 2]
    assert result.costs[0].median_seconds == 0.5 and result.costs[1].answer_tokens == 5


def test_metrics_are_those_of_the_specialist_or_built_in_and_others_have_a_reason(make_house: MakeHouse) -> None:
    house = make_house()
    house.change_terms(metrics=make_terms("judge", "rougeL").metrics)
    result = house.evaluate()
    assert [figures.metric for figures in result.metrics] == ["log_likelihood", "rougeL"]
    assert "judge model" in result.not_measured["judge"] and "Not measured: judge" in house.page(result)
    house.change_terms(metrics=())
    names = [figures.metric for figures in house.evaluate("evl_2").metrics if "." not in figures.metric]
    assert names[0] == "log_likelihood" and {"rougeL", "bleu", "terms", "repetition", "perplexity"} < set(names)
    house.change_terms(house_terms=())
    without_terms = house.evaluate("evl_3")
    assert "terms" not in {figures.metric for figures in without_terms.metrics}
    assert not without_terms.not_measured.keys() - {"fabrication"}


def forget_rows(house: House, *numbers: int) -> None:
    """These rows no longer fit the context of any model."""
    generate, score = house.models.generate, house.models.score

    def check(messages: Any) -> None:
        if any(messages[-1][1] == f"Write {number}." for number in numbers):
            raise InvalidArgument(Reason.ROW_TOO_LONG, "Too long.")

    def checked_generate(model: str, messages: Any, sampling: Any) -> Any:
        check(messages)
        return generate(model, messages, sampling)

    def checked_score(model: str, messages: Any, completion: str) -> Any:
        check(messages)
        return score(model, messages, completion)

    house.models.generate, house.models.score = checked_generate, checked_score  # type: ignore[method-assign]


def test_rows_that_do_not_fit_the_context_are_skipped_in_every_model_and_counted(make_house: MakeHouse) -> None:
    house = make_house(rows=10)
    generate, score = house.models.generate, house.models.score
    forget_rows(house, 3, 7)
    result = house.evaluate()
    assert (result.rows, result.rows_too_long, result.held_out_rows) == (8, 2, 10)
    assert {estimate.rows for figures in result.metrics for estimate in figures.models.values()} == {8}
    assert "Left out: 2 held-out rows" in house.page(result)
    assert wire.from_result(result).rows_too_long == 2
    forget_rows(house, 2)
    house.queue("evl_2", "ad2")
    assert house.run() and house.outcome("evl_2") == failed("HELD_OUT_ROWS_TOO_LONG")
    # Inference serves a longer context: the base is asked again too.
    house.models.generate, house.models.score = generate, score  # type: ignore[method-assign]
    result = house.evaluate("evl_3", "ad3")
    assert (result.rows, result.rows_too_long) == (10, 0)


class Stranger(BaseModel):
    """A model without log-probabilities."""

    @property
    def name(self) -> str:
        return "external:present"

    @property
    def key(self) -> str:
        return "external:present"

    def score(self, row: HeldOutRow, completion: str) -> None:
        return None


class Refusing(Stranger):
    def prepare(self) -> None:
        raise FailedPrecondition(Reason.INVALID_ARGUMENT, "The endpoint refuses the key.")


def test_another_model_may_lack_log_probabilities_or_refuse(make_house: MakeHouse) -> None:
    house, strangers = make_house(), [Refusing, Stranger]

    def with_stranger(*arguments: Any) -> Any:
        base, *others = house.list_served(*arguments)
        return [base, strangers.pop()(house.models, "other"), *others]

    house.employ(replace(house.worker, list_models=with_stranger))
    figures = {figures.metric: figures for figures in house.evaluate().metrics}
    assert "external:present" not in figures["log_likelihood"].models
    assert figures["rougeL"].gains["external:present"].value == 1
    house.change_terms(sampling=SamplingDefaults(max_tokens=9))
    result = house.evaluate("evl_2")
    assert models_of(result) == {"base", "candidate"}
    assert "refuses the key" in result.not_measured["external:present"]


def test_pairs_and_documents_are_measured_together(make_house: MakeHouse) -> None:
    # A run on pairs is measured on the documents of an earlier stage too.
    house = make_house()
    house.add_pairs("pairs")
    house.artifacts.adapters.add(make_adapter("ad0"))
    result = house.evaluate(dataset_digest="pairs", parent_digest="ad0")
    figures = {figures.metric: figures for figures in result.metrics}
    assert figures["win_rate"].models["candidate"].value == 1 and figures["win_rate"].models["base"].value == 0.5
    assert (figures["win_rate"].gains["base"].rows, figures["rougeL"].gains["base"].rows) == (6, 4)
    assert figures["pair_margin"].models["base"].value == 0 < figures["pair_margin"].gains["base"].low
    assert result.rows == 10 and house.models.calls.count("adapter:ad1") == 4
    # A run on documents is measured on the newest pairs of its specialist, and of no other.
    house.add_pairs("others", "memos")
    assert house.evaluate("evl_2", "ad2").pairs == 0
    house.add_pairs("pairs2", "reports")
    result = house.evaluate("evl_3", "ad3")
    figures = {figures.metric: figures for figures in result.metrics}
    assert (figures["win_rate"].gains["base"].rows, figures["rougeL"].gains["base"].rows) == (6, 4)
    assert (result.rows, result.pairs, result.preference_dataset_digest) == (10, 6, "")
    assert (result.held_out_rows, result.held_out_pairs) == (10, 6)
    read = wire.to_result(wire.from_result(result), result.evaluation)
    assert (read.pairs, read.held_out_pairs) == (6, 6)
    # An erasure deleted them.
    newest = house.artifacts.datasets.newest(ranked_for="reports")
    assert newest is not None
    house.store.delete("datasets", newest.manifest.uri.removeprefix("s3://datasets/"))
    assert house.evaluate("evl_4", "ad4").pairs == 0


def test_a_run_on_pairs_only_answers_its_pairs(make_house: MakeHouse) -> None:
    house = make_house()
    house.add_pairs("pairs", count=3)
    figures = {figures.metric: figures for figures in house.evaluate(dataset_digest="pairs").metrics}
    assert {"pair_margin", "win_rate", "rougeL", "log_likelihood"} <= set(figures)
    assert figures["rougeL"].models["candidate"].value == 1 and house.models.calls.count("base") == 3


def test_an_evaluation_names_what_candidate_and_incumbent_learned_from_experts(make_house: MakeHouse) -> None:
    house = make_house()
    house.specialists.update_serving(make_serving("ad0"))
    house.add_pairs("p1", "reports")
    house.add_pairs("p2", "reports")
    house.artifacts.adapters.add(make_adapter("ad0", preference_dataset_digest="p1"))
    learned = {"dataset_digest": "p2", "sft_dataset_digest": "data1", "preference_dataset_digest": "p2"}
    result = house.evaluate(**learned)
    assert (result.preference_dataset_digest, result.incumbent_preference_dataset_digest) == ("p2", "p1")
    assert (result.pairs, result.rows) == (6, 10)
    message = wire.from_result(result)
    assert (message.preference_dataset_digest, message.incumbent_preference_dataset_digest) == ("p2", "p1")
    assert house.artifacts.adapters.find(digest="ad1") == make_adapter(**learned)
    for digest in ("data1", "p1", "p2"):
        assert house.evaluations.trained_on([digest]) == ["evl_1"]
    assert house.evaluations.trained_on(["d2"]) == []


# What survives, and what fails.


def test_a_killed_holder_writes_nothing_and_another_replica_goes_on_from_stored_results(make_house: MakeHouse) -> None:
    house = make_house()
    other = House(house.engine)
    house.queue()
    (old,) = house.jobs.claim()
    house.results.add(old, "base", "k", ModelResult((), ()))
    house.evaluations.record(old, state=EvaluationState.RUNNING, rows_total=8)
    assert not other.run()
    end_leases(house.engine, tables.jobs)
    load, other.models.load = other.models.load, crash  # type: ignore[method-assign, assignment]
    with pytest.raises(SystemError):
        other.run()
    assert house.find().state is EvaluationState.RUNNING
    # The one that was paused wakes up.
    for write in (
        partial(house.evaluations.record, old, rows_done=4),
        partial(house.evaluations.record, old, state=EvaluationState.FAILED, reason="WRONG_BASE"),
        partial(house.results.add, old, "base", "other", ModelResult((), ())),
    ):
        with pytest.raises(JobLost):
            write()
    house.jobs.work(old)
    assert house.published() == [] and house.find().state is EvaluationState.RUNNING
    end_leases(house.engine, tables.jobs)
    other.models.load = load  # type: ignore[method-assign]
    assert other.run() and house.outcome() == SUCCEEDED and len(other.published()) == 1
    # The base was asked before the crash.
    assert other.models.calls.count("base") == 4 and house.results.find("base", "other") is None
    house.queue()
    assert not house.run()


def test_an_evaluation_that_always_crashes_fails_after_max_starts(make_house: MakeHouse) -> None:
    house = make_house()
    house.models.load = crash  # type: ignore[method-assign, assignment]
    house.queue()
    for _ in range(3):
        with pytest.raises(SystemError):
            house.run()
        end_leases(house.engine, tables.jobs)
    assert house.run() and house.outcome() == failed("STARTED_TOO_OFTEN")


def test_an_evaluation_that_cannot_succeed_fails_with_its_reason(make_house: MakeHouse) -> None:
    house = make_house(rows=0)
    house.queue()
    assert house.run() and house.outcome() == failed("NO_HELD_OUT_ROWS")
    rows = {"dataset_digest": "data2"}
    house.store_rows("data2", [make_row(1)])
    house.models.failures = [FailedPrecondition(Reason.WRONG_BASE, "Another base.")] * 2
    house.queue("evl_2", "ad2", **rows)
    assert house.run() and house.outcome("evl_2") == failed("WRONG_BASE")
    house.models.failures.clear()
    # The next stage of its run starts from an intermediate adapter, which is evaluated only on request.
    adapter = house.queue("evl_3", "ad3", intermediate=True, **rows)
    assert not house.run()
    house.evaluations.queue("evl_4", adapter)
    assert house.run() and house.outcome("evl_4") == SUCCEEDED
    house.change_terms(deleted=True)
    house.queue("evl_5")
    assert house.run() and house.outcome("evl_5") == failed(Reason.SPECIALIST_DELETED)


def test_an_outage_of_inference_is_waited_for_and_ends_after_a_while(make_house: MakeHouse) -> None:
    house = make_house()
    house.models.failures = [silence() for _ in range(12)]
    assert value(house.evaluate(), "rougeL", "candidate") == 1
    generate, unloaded = house.models.generate, list[str]()

    def generate_once_unloaded(model: str, messages: Any, sampling: Any) -> Any:
        if model != "base" and not unloaded:
            unloaded.append(model)
            raise NotFound(Reason.UNKNOWN_MODEL, "There is no such model.")
        return generate(model, messages, sampling)

    house.models.generate = generate_once_unloaded  # type: ignore[method-assign]
    assert value(house.evaluate("evl_2", "ad2"), "rougeL", "candidate") == 1 and unloaded
    # The process ends meanwhile: the next one goes on.
    house.models.failures = [silence() for _ in range(1000)]
    house.queue("evl_3", "ad3")
    (job,) = house.jobs.claim()
    job.stop.set()
    house.jobs.work(job)
    assert house.find("evl_3").state.is_open
    house.employ(replace(house.worker, limits=RetryLimits(give_up_seconds=0)))
    assert house.run() and house.outcome("evl_3") == failed("INFERENCE_UNAVAILABLE")


def test_an_evaluation_that_waits_for_an_event_holds_up_no_other_and_fails_in_the_end(make_house: MakeHouse) -> None:
    house = make_house(limits=RetryLimits(give_up_seconds=10, max_starts=1))
    house.queue("evl_1", dataset_digest="later")
    house.queue("evl_2", "ad2", specialist="later")
    for number in range(3, 6):
        house.queue(f"evl_{number}", f"ad{number}", **({} if number == 3 else {"dataset_digest": "never"}))
    house.queue("evl_6", "ad6", specialist="never")
    while house.outcome("evl_3") != SUCCEEDED:
        assert house.run()
    house.store_rows("later", [make_row(1)])
    house.specialists.terms["later"] = replace(make_terms(), name="later")
    # Ten looks wait a second each, and the next one gives up.
    for _ in range(11):
        house.look_again()
        while house.run():
            pass
    outcomes = [house.outcome(f"evl_{number}") for number in range(1, 7)]
    assert outcomes[:3] == [SUCCEEDED] * 3
    assert outcomes[3:] == [failed("UNKNOWN_DATASET")] * 2 + [failed("UNKNOWN_SPECIALIST")]


def test_erased_documents_leave_reports_results_and_running_evaluations(make_house: MakeHouse) -> None:
    house = make_house()
    quoting = {"rows": [], "notes": {"few_shot": {"document_ids": ["doc_1"]}, "external:gpt": {"refused prompts": 1}}}
    contents = [{"rows": [{"document_ids": ["doc_1"]}]}, {"rows": [{"document_ids": ["doc_2"]}]}, quoting]
    for number in (1, 2, 3):
        house.queue(f"evl_{number}")
    running = Jobs(house.engine, tables.jobs, [JobKind(EVALUATION, house.worker.run, limit=3)]).claim()
    for job, content in zip(running, contents, strict=True):
        for model in ("base", "adapter:ad1", "adapter:ad0"):
            house.results.add(job, model, "key", ModelResult((), ()))
        for name, data in (("report.json", json.dumps(content).encode()), ("report.md", b"#"), ("scores.png", b"png")):
            house.store.put("reports", f"{job.key}/{name}", data)
    assert house.forget("doc_1", "data2") == {"results": 0, "report_objects": 0, "prompts": 0}
    assert house.forget("doc_1", "data1") == {"results": 6, "report_objects": 6, "prompts": 0}
    assert {key.split("/")[0] for bucket, key in house.store.objects if bucket == "reports"} == {"evl_2"}
    outcomes = [house.outcome(f"evl_{number}")[0].value for number in (1, 2, 3)]
    assert outcomes == ["FAILED", "QUEUED", "FAILED"]
    assert house.forget("doc_1", "data1") == {"results": 0, "report_objects": 0, "prompts": 0}
    # What still runs can write nothing more.
    with pytest.raises(JobLost):
        house.results.add(running[0], "base", "key", ModelResult((), ()))
    house.results.add(running[1], "base", "key", ModelResult((), ()))


def test_rows_of_an_erased_document_are_not_evaluated(make_house: MakeHouse) -> None:
    house = make_house(erased=frozenset({"doc_3"}))
    house.queue()
    assert house.run() and house.outcome() == failed(Reason.ROWS_ERASED)


# The database.


def test_results_survive_and_serve_later_evaluations_on_the_same_rows(make_house: MakeHouse) -> None:
    house = make_house()
    house.queue()
    (job,) = house.jobs.claim()
    answers, notes = (Answer("an answer", False, 0.5, 7, 3), None), {"document_ids": ["doc_1"], "refused prompts": 2}
    result = ModelResult(answers, (Score(-1.25, 3), None), (None, Score(-2.0, 1)), notes)
    house.results.add(job, "adapter:ad1", "k", result)
    house.results.add(job, "adapter:ad1", "k", ModelResult((), ()))
    find = house.results.find
    assert find("adapter:ad1", "k", "evl_1") == result == find("adapter:ad1", "k")
    assert find("adapter:ad1", "k", "evl_2") is None
    assert find("base:smollm2", "k") is None and find("adapter:ad1", "other") is None


def test_the_newest_ranked_dataset_belongs_to_its_specialist(make_house: MakeHouse) -> None:
    house = make_house()
    assert house.artifacts.datasets.newest(ranked_for="reports") is None
    for digest in ("pairs1", "pairs2"):
        manifest = common_pb2.ObjectRef(uri=f"s3://datasets/{digest}/manifest.json", sha256="0" * 64, size_bytes=9)
        kind = models_pb2.DATASET_KIND_PREFERENCE
        built = models_pb2.DatasetBuilt(digest=digest, specialist="reports", kind=kind, manifest=manifest)
        handle(house, "dataset.built.v1", built)
    newest = house.artifacts.datasets.newest(ranked_for="reports")
    assert (
        newest is not None and newest.digest == "pairs2" and house.artifacts.datasets.newest(ranked_for="memos") is None
    )
    # Evaluations of the specialist may have been measured on its pairs.
    house.queue()
    assert house.evaluations.trained_on(["pairs2"]) == ["evl_1"]


def test_agreements_and_definitions_are_stored_once(make_house: MakeHouse) -> None:
    engine = make_house().engine
    agreements = Rows(engine, tables.agreements, Agreement)
    assert agreements.find(key="k") is None
    for agreement in (Agreement(0.55, 40, 2), Agreement(0.9, 40)):
        agreements.add(agreement, key="k")
    agreements.add(Agreement(None, 3), key="few")
    assert (agreements.find(key="k"), agreements.find(key="few")) == (Agreement(0.55, 40, 2), Agreement(None, 3))
    definitions = SqlDefinitions(engine)
    first = SpecialistTerms("reports", 3, (), definition_digest="a" * 64)
    (record,) = definitions.freeze(first)
    # A later revision with the same metrics and gate has no effect.
    assert definitions.freeze(replace(first, revision=4)) == [record]
    assert (record.revision, record.digest) == (3, "a" * 64)
    changed = definitions.freeze(replace(first, revision=5, definition_digest="b" * 64))
    assert [entry.revision for entry in changed] == [3, 5]
    assert changed[1].freeze_time > changed[0].freeze_time
    back = definitions.freeze(replace(first, revision=6))
    assert [entry.digest[0] for entry in back] == ["a", "b", "a"]
    assert definitions.freeze(replace(first, name="memos"))[0].revision == 3
