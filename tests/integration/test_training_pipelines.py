"""Runs with stages, runs of pipelines, and what an erased document ends, over the database."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.training import handlers
from services.training.domain import DATASET_ERASED, Run, RunState
from services.training.erasures import Eraser
from services.training.pipeline import plan_pipeline
from services.training.recipe import Recipe
from services.training.spec import WorkerSpec, from_json, to_json
from services.training.transitions import MAX_ATTEMPTS
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import models_pb2
from tailor.errors import Aborted, FailedPrecondition, Unavailable
from tailor.events.erased import Erased
from tests.integration.training_service import House, training_service

pytestmark = pytest.mark.integration

DPO, RLOO = "sft,dpo", "sft,reward,rloo"


@pytest.fixture
def house(database_url: str, tmp_path: Path) -> Iterator[House]:
    with training_service(database_url, tmp_path) as house:
        yield house


def specs(house: House, run_id: str) -> list[WorkerSpec]:
    return [from_json(to_json(job)) for job in house.launcher.started if job.run.run_id == run_id]


def learned_from(house: House, run: Run) -> list[str]:
    return [house.name(digest) for digest in run.datasets]


def newest(house: House, count: int) -> Run:
    """The run that the last event made; `count` exist."""
    runs = house.runs.page()
    assert len(runs) == count, [run.recipe for run in runs]
    return runs[0]


def test_a_chain_runs_stage_by_stage_each_from_the_last_policy(house: House) -> None:
    parent = house.store_adapter()
    asked = {"recipe": "watched", "preference_dataset_digest": "p1", "parent_digest": parent, "priority": 3}
    run_id = house.create(**asked).run_id
    for epoch, digest in enumerate(("a1", "r1", "w1", "a2"), start=1):
        house.supervisor.tick()
        house.step(run_id, epoch, 1, reward=0.5)
        house.trained(run_id, epoch, digest, rows=6, tokens=200, memory_bytes=500 * epoch)
        house.end(run_id, epoch)
    run = house.only_run()
    assert (run.state, run.stage, run.priority, run.adapter_digest) == (RunState.SUCCEEDED, 3, 3, "a2")
    assert run.report is not None and (run.report.memory_bytes, run.report.tokens) == (2000, 800)
    stages = [
        (
            spec.stage,
            spec.recipe,
            house.name(spec.dataset_digest),
            *(ref and ref.sha256 for ref in (spec.parent, spec.reward, spec.held_out_reward)),
        )
        for spec in specs(house, run_id)
    ]
    assert stages == [
        (0, "tiny", "d1", parent, None, None),
        (1, "reward", "p1", "a1", None, None),
        (2, "held_out_reward", "p1", "a1", None, None),
        (3, "rloo", "p1", "a1", "r1", "w1"),
    ]
    events = house.published("adapter.trained.v1")
    assert [(event.digest, event.stage, event.parent_digest, house.name(event.dataset_digest)) for event in events] == [
        ("a1", 0, parent, "d1"),
        ("r1", 1, "a1", "p1"),
        ("w1", 2, "a1", "p1"),
        ("a2", 3, "a1", "p1"),
    ]
    assert [event.kind == models_pb2.ADAPTER_KIND_REWARD for event in events] == [False, True, True, False]
    assert [event.intermediate for event in events] == [True, False, False, False]
    last = events[-1]
    assert [house.name(digest) for digest in (last.sft_dataset_digest, last.preference_dataset_digest)] == ["d1", "p1"]
    assert (last.reward_adapter_digest, last.round) == ("r1", 0)
    # A held-out reward model is never a reward adapter to build on.
    assert house.runs.newest_adapter("reports", "tiny", "reward") == "r1"
    assert house.runs.newest_adapter("reports", "tiny", "policy") == "a2"
    with house.runs.unit() as unit:
        unit.drop_adapters(["a2"])
    assert house.runs.newest_adapter("reports", "tiny", "policy") == "a1"


def test_the_next_stage_waits_for_the_last_worker_and_counts_failures_afresh(house: House) -> None:
    run_id = house.create(recipe="polish", preference_dataset_digest="p1").run_id
    house.supervisor.tick()
    house.step(run_id, 1, 8)
    house.trained(run_id, 1)
    house.supervisor.tick()
    assert (house.only_run().epoch, house.only_run().reason, house.launcher.stopped) == (1, "NEXT_STAGE", [])
    with pytest.raises(Aborted):
        house.trained(run_id, 1, "a9")
    # It does not end.
    house.now.forward(31)
    house.supervisor.tick()
    assert house.launcher.stopped == [(run_id, 1)]
    house.now.forward(31)
    house.supervisor.tick()
    assert (house.only_run().state, house.only_run().epoch, house.only_run().best_step) == (RunState.RUNNING, 2, 0)
    for epoch in range(2, MAX_ATTEMPTS + 2):
        assert (house.only_run().stage, house.launcher.started[-1].stage.recipe) == (1, "dpo")
        house.end(run_id, epoch, 1)
        house.now.forward(100)
        house.supervisor.tick()
    assert (house.only_run().state, house.only_run().failures) == (RunState.FAILED, MAX_ATTEMPTS)


def test_a_stage_waits_for_rankings_of_its_specialist_and_can_be_cancelled_meanwhile(house: House) -> None:
    run_id = house.create(recipe="chain").run_id
    house.now.forward(1)
    cancelled = house.create(recipe="polish", dataset_digest="d2").run_id
    house.finish(run_id, "a1")
    assert (house.runs.get(run_id).state, house.runs.get(run_id).reason) == (RunState.QUEUED, "WAITS_FOR_RANKINGS")
    house.finish(cancelled, "a2")
    handlers.cancel_run(house.runs, cancelled, house.now())
    with pytest.raises(FailedPrecondition):
        handlers.cancel_run(house.runs, cancelled, house.now())
    house.publish("p2", specialist="memos")
    assert house.runs.get(run_id).lacks_rankings
    for _ in range(2):
        house.publish("p1")
    house.supervisor.tick()
    run = house.runs.get(run_id)
    assert (run.state, house.name(run.preferences), run.current.recipe) == (RunState.RUNNING, "p1", "reward")
    assert house.forecasts[-1] == ("tiny", "reward", "rloo")
    assert len(house.launcher.started) == 3


def test_a_learned_reward_is_the_specialists_newest_if_the_run_makes_none(house: House) -> None:
    reward = house.store_adapter(kind="reward")
    run_id = house.create(recipe="reward", dataset_digest="p1").run_id
    house.finish(run_id, reward)
    rloo = house.create(dataset_digest="p1", recipe="rloo").run_id
    house.supervisor.tick()
    (spec,) = specs(house, rloo)
    assert spec.reward is not None and spec.reward.sha256 == reward


def test_rollouts_of_a_specialist_that_thinks_do_so_and_are_another_run(house: House) -> None:
    def thinking(run: Run) -> list[bool]:
        return [Recipe.model_validate_json(stage.recipe_json).rollout.thinking for stage in run.stages]

    chain = {"recipe": "tiny,reward,rloo", "preference_dataset_digest": "p1"}
    plain = house.create(**chain)
    house.change_specialist(sampling=models_pb2.SamplingDefaults(thinking=common_pb2.THINKING_SHOWN))
    assert (thinking(plain), thinking(house.create(**chain))) == ([False] * 3, [False, False, True])
    for name in ("p1", "d2"):
        house.publish(name, RLOO)
    assert thinking(newest(house, 3)) == [False, False, True]
    house.change_specialist(sampling=models_pb2.SamplingDefaults(thinking=common_pb2.THINKING_OFF))
    assert house.create(**chain).run_id == plain.run_id


def test_a_dataset_of_either_kind_makes_one_run_with_the_newest_of_the_other_and_reuses_the_first_stage(
    house: House,
) -> None:
    house.publish("d1", DPO)
    first = newest(house, 1)
    assert [stage.recipe for stage in first.stages] == ["tiny"]
    house.finish(first.run_id, "a1")
    house.now.forward(60)
    request = house.wanted(recipe="tiny,dpo", preference_dataset_digest="p1")
    plan = plan_pipeline(house.ports, request)
    assert (house.forecasts[-1], house.runs.plan(plan.run_id)) == (("dpo",), None)
    # A run by hand trains it.
    handlers.plan_run(house.ports, request)
    assert house.forecasts[-1] == ("tiny", "dpo")
    for _ in range(2):
        house.publish("p1", DPO, minutes=1)
    ranked = newest(house, 2)
    assert (ranked.run_id, learned_from(house, ranked)) == (plan.run_id, ["d1", "p1"])
    assert (ranked.stage, ranked.stages[0].result and ranked.stages[0].result.digest) == (1, "a1")
    house.finish(ranked.run_id, "a2")
    assert [spec.parent and spec.parent.sha256 for spec in specs(house, ranked.run_id)] == ["a1"]
    done = house.runs.get(ranked.run_id)
    assert done.report is not None and done.report.steps == 8
    house.now.forward(60)
    house.publish("d2", DPO, minutes=2)
    more = newest(house, 3)
    assert (learned_from(house, more), more.round, more.stage) == (["d2", "p1"], 1, 0)
    house.finish(more.run_id, "a3", "a4")
    # A redelivery, and a dataset that is older.
    house.publish("d2", DPO, minutes=2)
    house.publish("d1", DPO)
    newest(house, 3)
    with house.runs.unit() as unit:
        unit.drop_adapters(["a3"])
    house.now.forward(60)
    house.publish("p2", DPO, minutes=3)
    again = newest(house, 4)
    assert (learned_from(house, again), again.round, again.stage, again.recipe) == (["d2", "p2"], 2, 0, "tiny,dpo")


def test_rankings_wait_for_documents_and_make_no_run_of_a_pipeline_without_them(house: House) -> None:
    house.publish("p1", DPO)
    assert house.runs.page() == []
    house.publish("d1", "sft", minutes=1)
    assert learned_from(house, newest(house, 1)) == ["d1"]
    house.publish("p2", "sft", minutes=2)
    newest(house, 1)
    house.now.forward(60)
    house.publish("d2", DPO, minutes=3)
    assert learned_from(house, newest(house, 2)) == ["d2", "p2"]


def test_waiting_runs_of_the_pipeline_are_superseded_and_no_others(house: House) -> None:
    house.publish("d1", specialist="memos")
    other = newest(house, 1)
    handlers.cancel_run(house.runs, other.run_id, house.now())
    started = house.start("d1", DPO)
    house.publish("d2", specialist="memos", minutes=1)
    manual = house.create(recipe="polish").run_id
    for number, name in enumerate(("p1", "d2"), start=1):
        house.now.forward(60)
        house.publish(name, DPO, minutes=number)
    last, waiting, *_ = house.runs.page("reports")
    assert (waiting.state, waiting.reason, last.run_id in waiting.message) == (RunState.CANCELLED, "SUPERSEDED", True)
    assert [message.reason for message in house.published("run.failed.v1")] == ["CANCELLED", "SUPERSEDED"]
    assert not house.runs.get(started).state.ended
    assert house.runs.get(manual).state is RunState.QUEUED


def test_every_round_retrains_the_reward_adapter_on_the_newest_rankings(house: House) -> None:
    house.publish("d1", RLOO)
    house.finish(newest(house, 1).run_id, "a1")
    for number, name in enumerate(("p1", "p2"), start=1):
        house.now.forward(60)
        house.publish(name, RLOO, minutes=number)
        run = newest(house, number + 1)
        house.finish(run.run_id, f"r{number}", f"b{number}")
        reward, rloo = house.runs.get(run.run_id).stages[1:]
        assert reward.dataset == rloo.dataset == house.refs[name]
        assert rloo.reward is not None and rloo.reward.sha256 == f"r{number}"
        assert house.published("adapter.trained.v1")[-1].round == number


def test_a_recipe_of_another_method_than_its_stage_is_refused(house: House) -> None:
    stages = "sft,reward,held_out_reward,rloo"
    house.publish("d1", stages)
    house.publish("p1", stages, minutes=1)
    assert [run.recipe for run in house.runs.page()].count("tiny,reward,held_out_reward,rloo") == 1
    wrong = ({"held_out_reward": "reward"}, {"reward": "held_out_reward"}, {"rloo": "dpo"})
    for number, recipes in enumerate(wrong, start=1):
        house.now.forward(60)
        house.publish("p1", stages, recipes=recipes)
        ((stage, recipe),) = recipes.items()
        run = newest(house, 2 + number)
        assert (run.state, run.reason) == (RunState.FAILED, "INVALID_RECIPE")
        assert f"'{stage}' names the recipe '{recipe}', whose method is '{recipe}'" in run.message


def forget(house: House, work: Path, *datasets: str, adapters: tuple[str, ...] = ()) -> dict[str, int]:
    digests = tuple(house.digest(name) for name in datasets)
    eraser = Eraser(house.runs, house.launcher, house.store, work, house.now)
    return dict(eraser.forget(Erased("doc_1", "ers_1", digests, adapters, adapters)).counts)


def test_a_running_run_ends_and_loses_its_checkpoints_once_its_worker_has_ended(house: House, tmp_path: Path) -> None:
    run_id, work = house.start(), tmp_path / "work"
    for name in ("manifest.json", "optimizer.pt"):
        house.store.put("models", f"runs/{run_id}/1/step-2/{name}", b"x")
    (work / f"{run_id}-1-x").mkdir(parents=True)
    with pytest.raises(Unavailable):
        forget(house, work, "d1")
    assert (house.only_run().state, house.only_run().reason) == (RunState.CANCELLED, DATASET_ERASED)
    assert house.launcher.stopped == [(run_id, 1)]
    house.launcher.exits[run_id, 1] = 75
    counts = forget(house, work, "d1")
    assert (counts["runs_cancelled"], counts["checkpoint_objects"]) == (1, 2)
    assert not house.store.list_keys("models", "runs/") and not list(work.iterdir())
    # A silent worker is waited for only as long as it may live.
    house.create(dataset_digest="d2")
    house.supervisor.tick()
    with pytest.raises(Unavailable):
        forget(house, work, "d2")
    house.now.forward(60)
    forget(house, work, "d2")


def test_a_retired_adapter_loses_its_files_except_shared_ones(house: House, tmp_path: Path) -> None:
    for digest, files in (("a1", ("shared", "own")), ("a2", ("shared",))):
        entries = [{"path": name, "key": f"adapters/files/{name}"} for name in files]
        house.store.put("models", f"adapters/{digest}/manifest.json", json.dumps({"files": entries}).encode())
        for name in files:
            house.store.put("models", f"adapters/files/{name}", b"x")
    assert forget(house, tmp_path, adapters=("a1",))["adapter_objects"] == 2
    assert house.store.list_keys("models", "adapters/") == ["adapters/a2/manifest.json", "adapters/files/shared"]
    assert forget(house, tmp_path, adapters=("a1",))["adapter_objects"] == 0


def test_a_dataset_with_an_erased_document_or_that_was_deleted_is_not_trained_on(house: House, tmp_path: Path) -> None:
    house.publish("d1", erased=["doc_1"])
    deleted = house.store.objects.pop(("datasets", house.refs["p1"].key))
    house.publish("p1", DPO)
    assert house.runs.page() == []
    house.store.objects["datasets", house.refs["p1"].key] = deleted
    house.publish("p1", DPO)
    house.publish("d1", DPO, erased=["doc_2"])
    assert learned_from(house, newest(house, 1)) == ["d1", "p1"]
    # The one of the other kind is left out, and the count of them goes on.
    house.store.objects.pop(("datasets", house.refs["p1"].key))
    house.now.forward(60)
    house.publish("d2", DPO, minutes=1)
    assert learned_from(house, newest(house, 2)) == ["d2"]
    forget(house, tmp_path, "p1")
    assert {(run.state, run.reason) for run in house.runs.page()} == {
        (RunState.QUEUED, ""),
        (RunState.CANCELLED, "SUPERSEDED"),
    }
    with house.runs.unit() as unit:
        assert [house.name(dataset.digest) for dataset in unit.newest_datasets("reports")] == ["d2"]
    house.now.forward(60)
    house.publish("p2", DPO, minutes=2)
    assert newest(house, 3).round == 2


@pytest.mark.parametrize(("dataset", "left"), [("d1", ""), ("p1", "a1")])
def test_adapters_and_runs_from_an_erased_dataset_are_no_longer_built_on(
    house: House, tmp_path: Path, dataset: str, left: str
) -> None:
    run_id = house.create(recipe="chain", preference_dataset_digest="p1").run_id
    house.finish(run_id, "a1", "r1", "a2")
    waiting = house.create(recipe="polish", dataset_digest="d2").run_id
    house.publish("p1")
    forget(house, tmp_path, dataset)
    assert house.runs.newest_adapter("reports", "tiny", "policy") == left
    assert house.runs.newest_adapter("reports", "tiny", "reward") == ""
    assert (house.runs.get(waiting).reason == DATASET_ERASED) is (dataset == "p1")


def test_only_runs_from_a_tainted_parent_or_base_end(house: House, tmp_path: Path) -> None:
    parent = house.store_adapter()
    (key,) = house.store.list_keys("models", "bases/tiny/")
    base = json.loads(house.store.read("models", key))
    house.store.put("models", key, json.dumps(base | {"adapter_digest": "a0"}).encode())
    runs = []
    for digest, origin in (("d1", ""), ("d2", parent), ("d2", "")):
        house.now.forward(1)
        runs.append(house.create(dataset_digest=digest, parent_digest=origin).run_id)
    house.finish(runs[0], "a1")
    house.launcher.exits[runs[1], 1] = 75
    forget(house, tmp_path, adapters=(parent,))
    assert [house.runs.get(run).state for run in runs] == [RunState.SUCCEEDED, RunState.CANCELLED, RunState.QUEUED]
    # The base of the first has a tainted adapter merged into it.
    assert house.runs.newest_adapter("reports", "tiny", "policy") == "a1"
    forget(house, tmp_path, adapters=("a0",))
    assert house.runs.newest_adapter("reports", "tiny", "policy") == ""
