"""Runs whose worker and service are killed in every way, and a pipeline of stages from rows to rankings.

The tests depend on their order.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from tailor.api.evaluation.v1 import evaluation_pb2, evaluation_pb2_grpc
from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.api.training.v1 import training_pb2
from tailor.datasets import TRAIN
from tailor.storage.buckets import DATASETS, MODELS
from tailor.storage.ref import Ref
from tests.e2e.conftest import Installation, ask_until
from tests.e2e.training import PREFERENCE, SFT, Datasets, Training

pytestmark = [pytest.mark.e2e, pytest.mark.release]

NAME = "killed-reports"
# Many micro-batches to a step, and many steps: what is killed on the way is far from its end, however busy the machine is.
STEPS, ROLLOUT_STEPS, MICRO_BATCHES = 30, 60, 60
RECIPE = """\
method = "{method}"
checkpoint_every_steps = {every}
[adapter]
kind = "lora"
r = 4
alpha = 8
dropout = {dropout}
[optimizer]
learning_rate = {rate}
[batch]
tokens = 256
max_length = 128
accumulation = {micro_batches}
[limit]
epochs = 40
max_steps = {steps}
"""
ROLLOUT = """\
[rollout]
prompts = 2
answers = 2
max_new_tokens = 8
mask_truncated = false
[[rewards]]
kind = "model"
"""
CHAINS = {
    "killed-chain": ["killed-steady", "killed-reward", "killed-rloo"],
    "killed-other-chain": ["killed-seldom", "killed-dpo"],
}
WORDS = "control envelope friction ledger anchor obligation readiness horizon evidence pack".split()


def _recipes() -> dict[str, str]:
    steady = {"method": "sft", "rate": 2e-3, "steps": STEPS, "dropout": 0.05, "micro_batches": MICRO_BATCHES}
    short = {"rate": 5e-4, "steps": 4, "dropout": 0.0, "every": 1, "micro_batches": 1}
    single = {
        # The checkpoint interval changes the recipe's digest, and so the run, but not what the run learns.
        "killed-steady": RECIPE.format(**steady, every=1000),
        "killed-seldom": RECIPE.format(**steady, every=2),
        "killed-never": RECIPE.format(**steady, every=999),
        "killed-budget": RECIPE.format(**steady, every=998),
        "killed-queued": RECIPE.format(**steady, every=997),
        "killed-ahead": RECIPE.format(**steady, every=996),
        "killed-once": RECIPE.format(**steady, every=5),
        "killed-reward": RECIPE.format(**short, method="reward"),
        "killed-dpo": RECIPE.format(**short, method="dpo"),
        "killed-rloo": RECIPE.format(**{**short, "steps": ROLLOUT_STEPS}, method="rloo") + ROLLOUT,
    }
    return single | {name: f"stages = {stages!r}\n" for name, stages in CHAINS.items()}


def _words(number: int, count: int) -> str:
    return " ".join(WORDS[(number * 7 + place * 3 + place // 4) % len(WORDS)] for place in range(count))


def _rows(numbers: range) -> list[dict[str, Any]]:
    return [
        {
            "row_id": f"row_{n:03}",
            "task": "section",
            "document_ids": [f"doc_{n}"],
            "messages": [
                {"role": "user", "content": _words(n, 5)},
                {"role": "assistant", "content": _words(n + 1, 9 + n % 5)},
            ],
        }
        for n in numbers
    ]


def _pairs(numbers: range) -> list[dict[str, Any]]:
    return [
        {
            "row_id": f"row_{n:03}",
            "task": "ranking",
            "document_ids": [f"doc_{n}"],
            "messages": [{"role": "user", "content": _words(n, 5)}],
            "chosen": f"Act: {_words(n, 3)}.",
            "rejected": _words(n + 4, 14),
        }
        for n in numbers
    ]


@dataclass
class Story:
    """State that the tests pass on to each other. `doomed` is a run whose workers are killed as soon as they start."""

    datasets: Datasets
    training: Training
    rows: Ref
    chain: str = ""
    expected: str = ""
    doomed: str = ""
    killer: threading.Thread = field(default_factory=threading.Thread)


def _create_specialist(installation: Installation, name: str, **fields: Any) -> None:
    """A specialist without a pipeline, whose adapters are evaluated quickly and never pass."""
    specialist = models_pb2.SpecialistChanged(
        name=name,
        base="tiny",
        recipe="tiny",
        selection=models_pb2.Selection(sources=["nowhere"]),
        sampling=models_pb2.SamplingDefaults(max_tokens=24),
        evaluation=models_pb2.EvaluationPolicy(max_rows=12, max_answers=6, max_suite_items=4),
        gate=models_pb2.Gate(primary=models_pb2.PrimaryMetric(metric="perplexity", min_gain=1e9)),
        **fields,
    )
    installation.registry.CreateSpecialist(registry_pb2.CreateSpecialistRequest(specialist=specialist), timeout=60)


@pytest.fixture(scope="module")
def story(installation: Installation) -> Iterator[Story]:
    for name, text in _recipes().items():
        installation.recipes.joinpath(f"{name}.toml").write_text(text, encoding="utf-8")
    _create_specialist(installation, NAME)
    datasets = Datasets(installation)
    rows, _ = datasets.write("sft", NAME, _rows(range(24)), _rows(range(24, 28)))
    yield Story(datasets, Training(installation), rows)


def _kill_service(installation: Installation) -> int:
    pid = installation.pid("training")
    os.kill(pid, signal.SIGKILL)
    return pid


def _wait_for_service(installation: Installation, killed: int) -> None:
    def back() -> bool:
        state = installation.stack.snapshot().components["training"]
        return state.state == "ready" and state.process is not None and state.process.pid != killed

    ask_until(back, "training after kill -9", 120)


def _refused(story: Story, run_id: str) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as refused:
        story.training.cancel(run_id)
    code: grpc.StatusCode = refused.value.code()
    return code


def _first_steps(steps: list[tuple[int, int]]) -> dict[int, int]:
    """The first step of each epoch."""
    return {epoch: min(step for other, step in steps if other == epoch) for epoch, _ in steps}


def test_a_run_publishes_its_first_stage_and_then_waits_for_rankings(installation: Installation, story: Story) -> None:
    # Without a pipeline it starts no run, but the registry knows it, without which nothing is evaluated.
    story.datasets.publish(NAME, story.rows, SFT)
    story.chain = story.training.create(specialist=NAME, dataset_digest=story.rows.sha256, recipe="killed-chain")
    waiting = story.training.wait_for_reason(story.chain, "WAITS_FOR_RANKINGS")
    assert (waiting.state, waiting.stage) == (training_pb2.RUN_STATE_QUEUED, 1)
    assert [stage.method for stage in waiting.stages] == ["sft", "reward", "rloo"]
    adapter = waiting.stages[0].adapter_digest
    story.expected = story.training.weights(adapter)

    def catalogued() -> list[str]:
        request = registry_pb2.ListAdaptersRequest(specialist=NAME)
        return [item.adapter.digest for item in installation.registry.ListAdapters(request, timeout=60).adapters]

    ask_until(lambda: adapter in catalogued(), "the adapter in the catalogue", 60)


def test_a_worker_that_always_dies_is_started_five_times(story: Story) -> None:
    # This takes a minute; the next tests run meanwhile.
    story.doomed = story.training.create(
        specialist=NAME, dataset_digest=story.rows.sha256, recipe="killed-once", priority=100
    )

    def kill() -> None:
        for epoch in range(1, 6):
            os.kill(story.training.wait_for_worker(story.doomed, epoch).pid, signal.SIGKILL)

    story.killer = threading.Thread(target=kill, name="killer", daemon=True)
    story.killer.start()
    assert story.training.wait_for_reason(story.doomed, "WORKER_DIED").state == training_pb2.RUN_STATE_QUEUED


def test_a_run_ends_with_the_same_weights_despite_kills_and_damaged_checkpoints(
    installation: Installation, story: Story
) -> None:
    training = story.training
    run_id = training.create(specialist=NAME, dataset_digest=story.rows.sha256, recipe="killed-other-chain")
    training.advance(run_id, 3)
    torn = training.tear(run_id, training.wait_for_worker(run_id))
    assert torn in training.checkpoints(run_id)
    resumed = [checkpoint for checkpoint in training.checkpoints(run_id) if checkpoint.whole]
    second = training.wait_for_worker(run_id, 2)
    training.advance(run_id, torn.step + 6, epoch=2)
    os.kill(second.pid, signal.SIGKILL)
    killed = _kill_service(installation)
    # The worker may have been killed while it uploaded the next one.
    whole = [checkpoint for checkpoint in training.checkpoints(run_id) if checkpoint.whole]
    newest = whole[-1]
    assert newest.step > torn.step
    training.store.put(MODELS, f"{newest.prefix}/optimizer.pt", b"tampered")
    _wait_for_service(installation, killed)
    run = training.wait_for_reason(run_id, "WAITS_FOR_RANKINGS")
    assert training.weights(run.stages[0].adapter_digest) == story.expected
    assert run.epoch == 3
    assert training.cancel(run_id).state == training_pb2.RUN_STATE_CANCELLED
    assert _refused(story, run_id) is grpc.StatusCode.FAILED_PRECONDITION
    assert _first_steps(training.steps(run_id)) == {
        1: 1,
        2: resumed[-1].step + 1 if resumed else 1,
        3: whole[-2].step + 1 if len(whole) > 1 else 1,
    }
    assert training.checkpoints(run_id) == []


def test_a_worker_survives_its_service_and_loses_no_step_on_sigterm(installation: Installation, story: Story) -> None:
    training = story.training
    run_id = training.create(specialist=NAME, dataset_digest=story.rows.sha256, recipe="killed-never")
    reached = training.advance(run_id, 3).progress.step
    worker = training.wait_for_worker(run_id)
    _wait_for_service(installation, _kill_service(installation))
    training.advance(run_id, reached + 1)
    assert worker.is_alive() and training.run(run_id).epoch == 1
    os.kill(worker.pid, signal.SIGTERM)
    training.wait_for_worker(run_id, 2)
    run = training.wait_for_end(run_id)
    assert (run.state, run.epoch) == (training_pb2.RUN_STATE_SUCCEEDED, 2)
    assert training.weights(run.adapter_digest) == story.expected
    # Steps that end while the service is away, and until the reporter asks again, are not reported; equal weights show that all were made.
    first, second = ([step for epoch, step in training.steps(run_id) if epoch == number] for number in (1, 2))
    assert reached < first[-1] < second[0] and second == list(range(second[0], STEPS + 1))


def _set_budget(installation: Installation, name: str, amount: float) -> None:
    found = installation.registry.GetSpecialist(registry_pb2.GetSpecialistRequest(name=name), timeout=60).specialist
    found.monthly_budget = amount
    installation.registry.UpdateSpecialist(registry_pb2.UpdateSpecialistRequest(specialist=found), timeout=60)


def test_a_run_at_its_budget_is_stopped_and_resumes_with_no_step_lost(installation: Installation, story: Story) -> None:
    training, name = story.training, "frugal"
    _create_specialist(installation, name, monthly_budget=1e6)
    rows, _ = story.datasets.write("sft", name, _rows(range(24)), _rows(range(24, 28)))
    # Otherwise the evaluation of its adapter waits for the dataset.
    story.datasets.publish(name, rows, SFT)
    wanted = {"specialist": name, "dataset_digest": rows.sha256, "recipe": "killed-budget"}
    run_id = training.create(**wanted)
    training.advance(run_id, 5)
    worker = training.wait_for_worker(run_id)
    _set_budget(installation, name, 0.01)
    # The supervisor signals a second later, and the worker saves after a step.
    stopped = training.wait_for_end(run_id)
    assert (stopped.state, stopped.reason) == (training_pb2.RUN_STATE_FAILED, "OVER_BUDGET")
    assert not worker.is_alive()
    with pytest.raises(grpc.RpcError, match=r"but 0\.00 EUR of the monthly budget of 0\.01 EUR"):
        training.create(**wanted)
    (saved,) = training.checkpoints(run_id)
    assert saved.whole and saved.step >= 5
    _set_budget(installation, name, 1e6)

    def resume() -> str:
        # Training may not have read of the new budget yet.
        with contextlib.suppress(grpc.RpcError):
            return training.create(**wanted)
        return ""

    assert ask_until(resume, "the resumed run", 60) == run_id
    run = training.wait_for_end(run_id)
    assert (run.state, run.epoch) == (training_pb2.RUN_STATE_SUCCEEDED, 2)
    assert training.weights(run.adapter_digest) == story.expected
    assert _first_steps(training.steps(run_id)) == {1: 1, 2: saved.step + 1}


def test_a_queued_or_running_run_can_be_cancelled_but_an_ended_one_cannot(
    installation: Installation, story: Story
) -> None:
    training = story.training
    fields = {"specialist": NAME, "dataset_digest": story.rows.sha256}
    running = training.create(**fields, recipe="killed-queued")
    worker = training.wait_for_worker(running)
    queued = training.create(**fields, recipe="lora")
    training.wait_for_reason(queued, "WAITS_FOR_SPECIALIST")
    assert training.cancel(queued).state == training_pb2.RUN_STATE_CANCELLED
    assert training.cancel(running).state == training_pb2.RUN_STATE_CANCELLED
    ask_until(lambda: not worker.is_alive(), "the worker's end", 90)
    for run_id in (queued, running):
        assert _refused(story, run_id) is grpc.StatusCode.FAILED_PRECONDITION
        assert training.run(run_id).reason == "CANCELLED"


def test_tampered_rows_fail_a_run_with_a_reason(installation: Installation, story: Story) -> None:
    datasets, training = story.datasets, story.training
    train = _rows(range(40, 60))
    rows, manifest = datasets.write("sft", NAME, train, train)
    ahead = training.create(specialist=NAME, dataset_digest=story.rows.sha256, recipe="killed-ahead")
    run_id = training.create(specialist=NAME, dataset_digest=rows.sha256, recipe="killed-steady")
    datasets.store.put(DATASETS, manifest.split(TRAIN).files[-1].ref.key, b"tampered")
    training.cancel(ahead)
    run = training.wait_for_end(run_id)
    assert (run.state, run.reason, run.epoch) == (training_pb2.RUN_STATE_FAILED, "CORRUPT_OBJECT", 1)
    assert run.message


def test_a_run_whose_workers_always_die_fails(story: Story) -> None:
    run = story.training.wait_for_end(story.doomed)
    assert (run.state, run.reason, run.epoch) == (training_pb2.RUN_STATE_FAILED, "WORKER_DIED", 5)
    story.killer.join(60)


def test_rankings_let_the_pipeline_finish_although_its_last_worker_is_killed(
    installation: Installation, story: Story
) -> None:
    training, datasets = story.training, story.datasets
    pairs, _ = datasets.write("preference", NAME, _pairs(range(16)), _pairs(range(16, 20)))
    datasets.publish(NAME, pairs, PREFERENCE)
    killed = training.advance(story.chain, 2, stage=2)
    os.kill(training.wait_for_worker(story.chain, killed.epoch).pid, signal.SIGKILL)
    run = training.wait_for_end(story.chain)
    assert run.state == training_pb2.RUN_STATE_SUCCEEDED, run.message
    sft, reward, rloo = run.stages
    assert [stage.parent_digest for stage in run.stages] == ["", sft.adapter_digest, sft.adapter_digest]
    assert (sft.kind, reward.kind, rloo.kind) == (
        models_pb2.ADAPTER_KIND_POLICY,
        models_pb2.ADAPTER_KIND_REWARD,
        models_pb2.ADAPTER_KIND_POLICY,
    )
    assert run.adapter_digest == rloo.adapter_digest
    assert training.manifest(rloo.adapter_digest)["parent_digest"] == sft.adapter_digest
    assert training.manifest(reward.adapter_digest)["kind"] == "reward"
    assert (run.epoch, run.preference_dataset_digest) == (4, pairs.sha256)
    assert run.plan.steps == run.report.steps == STEPS + 4 + ROLLOUT_STEPS
    assert run.report.memory_bytes > 0 and run.report.seconds > 0
    dpo = training.create(
        specialist=NAME, dataset_digest=pairs.sha256, recipe="killed-dpo", parent_digest=sft.adapter_digest
    )
    other = training.wait_for_end(dpo)
    assert other.state == training_pb2.RUN_STATE_SUCCEEDED, other.message
    assert training.manifest(other.adapter_digest)["parent_digest"] == sft.adapter_digest
    _evaluated(installation, [sft.adapter_digest, rloo.adapter_digest, other.adapter_digest])
    with pytest.raises(grpc.RpcError) as unknown:
        _evaluation(installation, reward.adapter_digest)
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


def _evaluation(installation: Installation, adapter: str) -> evaluation_pb2.GetEvaluationResponse:
    stub = evaluation_pb2_grpc.EvaluationServiceStub(installation.channel("evaluation"))
    return stub.GetEvaluation(evaluation_pb2.GetEvaluationRequest(adapter_digest=adapter), timeout=60)


def _evaluated(installation: Installation, adapters: list[str]) -> None:
    def ended() -> list[evaluation_pb2.GetEvaluationResponse] | None:
        try:
            evaluations = [_evaluation(installation, adapter) for adapter in adapters]
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise
        running = evaluation_pb2.EVALUATION_STATE_RUNNING
        return evaluations if all(item.state > running for item in evaluations) else None

    for evaluation in ask_until(ended, "evaluations of the policies", 240):
        assert evaluation.state == evaluation_pb2.EVALUATION_STATE_SUCCEEDED, evaluation.reason
        assert evaluation.rows_total == evaluation.rows_done > 0
        (parity,) = (item for item in evaluation.result.suites if item.metric == "parity")
        assert parity.models["candidate"].value < 0.1
