"""Runs of pipelines: which datasets they learn from, what they reuse, and what they supersede."""

from dataclasses import replace
from pathlib import Path

import pytest

from services.training import handlers, reporting, wire
from services.training.domain import Run, RunState
from services.training.erasures import Eraser
from services.training.pipeline import plan_pipeline, queue_run_for_dataset
from services.training.recipe import load_stages
from tailor.errors import InvalidArgument
from tailor.events.erased import Erased
from tailor.pipelines import PipelineStage
from tailor.storage.memory import MemoryStore
from tests.unit.training.chains import write_recipes
from tests.unit.training.fakes import RATES, START, House, built, built_as, dataset_ref, trained, wanted

DPO = ("sft", "dpo")
RLOO = ("sft", "reward", "rloo")


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(write_recipes(tmp_path))


def queue(house: House, digest: str, *stages: str, minutes: int = 0) -> Run:
    run = queue_run_for_dataset(house.ports, built_as(digest, *stages, minutes=minutes))
    assert run is not None
    return run


def finish(house: House, run_id: str, *digests: str) -> None:
    """The run's workers report their adapters, stage by stage."""
    for digest in digests:
        house.supervisor.tick()
        run = house.runs.runs[run_id]
        assert run.state is RunState.RUNNING, run.message
        reporting.report_trained(house.runs, run_id, run.epoch, trained(digest), rates=RATES, now=house.now())
        house.launcher.exits[run_id, run.epoch] = 0


def learned_from(run: Run) -> list[str]:
    return [stage.dataset.sha256 for stage in run.stages if stage.dataset]


def test_new_dataset_of_either_kind_makes_one_run_with_the_newest_of_the_other(house: House) -> None:
    first = queue(house, "d1", *DPO)
    assert [stage.recipe for stage in first.stages] == ["tiny"]
    finish(house, first.run_id, "a1")
    ranked = queue(house, "p1", *DPO, minutes=1)
    assert learned_from(ranked) == ["d1", "p1"]
    finish(house, ranked.run_id, "a2")
    more = queue(house, "d2", *DPO, minutes=2)
    assert (learned_from(more), more.round) == (["d2", "p1"], 1)
    finish(house, more.run_id, "a3", "a4")
    again = queue(house, "p2", *DPO, minutes=3)
    assert (learned_from(again), again.round, again.recipe) == (["d2", "p2"], 2, "tiny,dpo")
    assert len(house.runs.runs) == 4


def test_redelivered_or_older_dataset_makes_no_other_run(house: House) -> None:
    first = queue(house, "d2", *DPO, minutes=2)
    assert queue(house, "d2", *DPO, minutes=2).run_id == first.run_id
    assert queue_run_for_dataset(house.ports, built_as("d1", *DPO, minutes=1)) is None
    assert list(house.runs.runs) == [first.run_id]


def test_rankings_without_documents_wait_for_them(house: House) -> None:
    assert queue_run_for_dataset(house.ports, built_as("p1", *DPO)) is None
    run = queue(house, "d1", *DPO, minutes=1)
    assert learned_from(run) == ["d1", "p1"]


def test_rankings_make_no_run_of_a_pipeline_without_them(house: House) -> None:
    queue(house, "d1", "sft")
    assert queue_run_for_dataset(house.ports, built_as("p1", "sft", minutes=1)) is None
    assert len(house.runs.runs) == 1


def test_waiting_run_is_superseded_with_a_reason_and_a_started_one_goes_on(house: House) -> None:
    started = queue(house, "d1", *DPO)
    house.supervisor.tick()
    manual = handlers.create_run(house.ports, wanted(recipe="polish"))
    waiting = queue(house, "p1", *DPO, minutes=1)
    newest = queue(house, "d2", *DPO, minutes=2)
    ended = house.runs.runs[waiting.run_id]
    assert (ended.state, ended.reason) == (RunState.CANCELLED, "SUPERSEDED")
    assert newest.run_id in ended.message
    assert ("run.failed.v1", "SUPERSEDED") in house.runs.published
    assert house.runs.runs[started.run_id].state is RunState.RUNNING
    assert house.runs.runs[manual.run_id].state is RunState.QUEUED


def test_runs_of_another_specialist_are_not_superseded(house: House) -> None:
    queue_run_for_dataset(house.ports, built(specialist="memos"))
    queue(house, "d1", *DPO)
    assert {run.state for run in house.runs.runs.values()} == {RunState.QUEUED}


def test_first_stage_on_the_same_documents_is_not_trained_twice(house: House) -> None:
    finish(house, queue(house, "d1", *DPO).run_id, "a1")
    ranked = queue(house, "p1", *DPO, minutes=1)
    assert (ranked.stage, ranked.stages[0].result and ranked.stages[0].result.digest) == (1, "a1")
    finish(house, ranked.run_id, "a2")
    (job,) = [job for job in house.launcher.started if job.run.run_id == ranked.run_id]
    assert job.stage.parent is not None and job.stage.parent.sha256 == "a1"
    assert [stage.recipe for stage in house.planner.asked[-1].stages] == ["dpo"]
    report = house.runs.runs[ranked.run_id].report
    assert report is not None and report.steps == trained().steps


def test_forecast_of_a_datasets_run_leaves_out_the_first_stage_that_was_trained(house: House) -> None:
    finish(house, queue(house, "d1", *DPO).run_id, "a1")
    request = wanted(recipe="tiny,dpo", preference_dataset_digest="p1")
    plan = plan_pipeline(house.ports, request)
    assert [stage.recipe for stage in house.planner.asked[-1].stages] == ["dpo"]
    assert house.runs.plan(plan.run_id) is None
    assert plan.run_id == queue(house, "p1", *DPO, minutes=1).run_id
    # A run by hand trains it.
    handlers.plan_run(house.ports, request)
    assert [stage.recipe for stage in house.planner.asked[-1].stages] == ["tiny", "dpo"]


def test_first_stage_is_trained_again_after_its_adapter_was_dropped(house: House) -> None:
    finish(house, queue(house, "d1", *DPO).run_id, "a1")
    house.runs.drop_adapters(["a1"])
    assert queue(house, "p1", *DPO, minutes=1).stage == 0


def test_every_round_retrains_the_reward_adapter_on_the_newest_rankings(house: House) -> None:
    finish(house, queue(house, "d1", *RLOO).run_id, "a1")
    for number, digest in enumerate(("p1", "p2"), start=1):
        run = queue(house, digest, *RLOO, minutes=number)
        finish(house, run.run_id, f"r{number}", f"b{number}")
        done = house.runs.runs[run.run_id]
        assert [stage.dataset and stage.dataset.sha256 for stage in done.stages[1:]] == [digest, digest]
        assert done.stages[2].reward is not None and done.stages[2].reward.sha256 == f"r{number}"


def test_event_of_an_adapter_names_both_datasets_the_reward_adapter_and_the_round(house: House) -> None:
    run_id = queue(house, "d1", *RLOO).run_id
    assert run_id
    run = queue(house, "p1", *RLOO, minutes=1)
    finish(house, run.run_id, "a1", "r1")
    house.supervisor.tick()
    current = house.runs.runs[run.run_id]
    message = wire.from_trained(current, trained("a2"), START)
    assert (message.sft_dataset_digest, message.preference_dataset_digest) == ("d1", "p1")
    assert (message.reward_adapter_digest, message.round, message.intermediate) == ("r1", 1, False)


def test_adapter_that_the_next_stage_starts_from_is_intermediate(house: House) -> None:
    queue_run_for_dataset(house.ports, built_as("p1", *DPO))
    run = queue(house, "d1", *DPO, minutes=1)
    message = wire.from_trained(run, trained("a1"), START)
    assert (message.intermediate, message.preference_dataset_digest, message.round) == (True, "", 0)
    alone = queue_run_for_dataset(house.ports, built(specialist="memos"))
    assert alone is not None and not wire.from_trained(alone, trained("a1"), START).intermediate


def test_erased_dataset_of_the_other_kind_is_skipped(house: House, tmp_path: Path) -> None:
    queue(house, "d1", *DPO)
    queue(house, "p1", *DPO, minutes=1)
    house.datasets.deleted.add(dataset_ref("p1"))
    assert learned_from(queue(house, "d2", *DPO, minutes=2)) == ["d2"]
    eraser = Eraser(house.runs, house.launcher, MemoryStore(), tmp_path / "work", house.now)
    eraser.forget(Erased("doc_1", "ers_1", ("p1",)))
    assert [dataset.digest for dataset in house.runs.newest_datasets("reports")] == ["d2"]
    assert queue(house, "p2", *DPO, minutes=3).round == 2


@pytest.mark.parametrize(
    ("recipe", "reason"), [("dpo", "WRONG_DATASET_KIND"), ("polish", "INVALID_RECIPE"), ("magic", "UNKNOWN_RECIPE")]
)
def test_pipeline_that_cannot_work_makes_one_failed_run(house: House, recipe: str, reason: str) -> None:
    for _ in range(2):
        queue_run_for_dataset(house.ports, built(recipe=recipe))
    assert (house.only_run().state, house.only_run().reason) == (RunState.FAILED, reason)
    assert house.runs.topics() == ["run.failed.v1"]


def test_recipe_of_another_method_than_its_stage_is_refused(house: House) -> None:
    queue(house, "d1", *DPO)
    wrong = (PipelineStage("sft", "tiny"), PipelineStage("dpo", "reward"))
    run = queue_run_for_dataset(house.ports, replace(built_as("p1", *DPO, minutes=1), pipeline=wrong))
    assert run is not None and (run.state, run.reason) == (RunState.FAILED, "INVALID_RECIPE")
    assert "'dpo' names the recipe 'reward', whose method is 'reward'" in run.message


def test_second_reward_model_is_a_stage_only_if_its_recipe_makes_a_held_out_reward_model(house: House) -> None:
    stages = ("sft", "reward", "held_out_reward", "rloo")
    queue(house, "d1", *stages)
    run = queue_run_for_dataset(house.ports, built_as("p1", *stages, minutes=1))
    assert run is not None and [stage.recipe for stage in run.stages] == ["tiny", "reward", "held_out_reward", "rloo"]
    for number, (stage, recipe) in enumerate((("held_out_reward", "reward"), ("reward", "held_out_reward"))):
        wrong = tuple(PipelineStage(name, recipe if name == stage else name.replace("sft", "tiny")) for name in stages)
        failed = queue_run_for_dataset(
            house.ports, replace(built_as("p1", *stages, minutes=2 + number), pipeline=wrong)
        )
        assert failed is not None and (failed.state, failed.reason) == (RunState.FAILED, "INVALID_RECIPE")
        assert f"'{stage}' names the recipe '{recipe}', whose method is '{recipe}'" in failed.message


def test_recipes_with_commas_are_stages(house: House, tmp_path: Path) -> None:
    assert [stage.name for stage in load_stages("tiny,dpo", tmp_path)] == ["tiny", "dpo"]
    with pytest.raises(InvalidArgument, match="at most 8 stages"):
        load_stages(",".join(["tiny"] * 9), tmp_path)
    with pytest.raises(InvalidArgument, match="has stages itself"):
        load_stages("tiny,polish", tmp_path)
    by_name = handlers.create_run(house.ports, wanted(recipe="tiny,dpo", preference_dataset_digest="p1"))
    assert (
        handlers.create_run(house.ports, wanted(recipe="polish", preference_dataset_digest="p1")).run_id
        == by_name.run_id
    )
