"""Runs with stages: the datasets, parents and order of stages."""

from dataclasses import replace
from pathlib import Path

import pytest

from services.training import handlers, reporting
from services.training.domain import REWARD, RunState
from services.training.pipeline import queue_run_for_dataset
from services.training.spec import from_json, to_json
from services.training.transitions import MAX_ATTEMPTS
from tailor.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound
from tests.unit.training.chains import write_recipes
from tests.unit.training.fakes import RATES, House, adapter, built_as, progress, trained, wanted


@pytest.fixture
def house(tmp_path: Path) -> House:
    made = House(write_recipes(tmp_path))
    made.adapters.adapters["a0"] = adapter("a0")
    return made


def finish(house: House, digest: str) -> None:
    """The current worker reports its adapter and ends, and the next one is started."""
    run = house.only_run()
    assert (
        reporting.report_trained(house.runs, run.run_id, run.epoch, trained(digest), rates=RATES, now=house.now())
        is False
    )
    house.launcher.exits[run.run_id, run.epoch] = 0
    house.supervisor.tick()


def test_chain_runs_stage_by_stage_and_ends_with_the_last(house: House) -> None:
    asked = wanted(recipe="chain", preference_dataset_digest="p1", parent_digest="a0")
    handlers.create_run(house.ports, asked)
    house.supervisor.tick()
    for digest in ("a1", "r1", "a2"):
        assert house.only_run().state is RunState.RUNNING
        finish(house, digest)
    run = house.only_run()
    assert (run.state, run.adapter_digest, run.epoch) == (RunState.SUCCEEDED, "a2", 3)
    specs = [from_json(to_json(job)) for job in house.launcher.started]
    assert [(spec.stage, spec.stages, spec.recipe) for spec in specs] == [
        (0, 3, "tiny"),
        (1, 3, "reward"),
        (2, 3, "rloo"),
    ]
    assert [spec.dataset_digest for spec in specs] == ["d1", "p1", "p1"]
    assert [spec.parent and spec.parent.sha256 for spec in specs] == ["a0", "a1", "a1"]
    assert [spec.reward and spec.reward.sha256 for spec in specs] == [None, None, "r1"]
    assert [(topic, digest) for topic, digest in house.runs.published] == [
        ("adapter.trained.v1", digest) for digest in ("a1", "r1", "a2")
    ]


def test_held_out_reward_model_scores_beside_the_reward_adapter_and_never_instead_of_it(house: House) -> None:
    handlers.create_run(house.ports, wanted(recipe="watched", preference_dataset_digest="p1"))
    house.supervisor.tick()
    for digest in ("a1", "r1", "w1"):
        finish(house, digest)
    spec = from_json(to_json(house.launcher.started[-1]))
    assert (spec.recipe, spec.parent and spec.parent.sha256) == ("rloo", "a1")
    assert (spec.reward and spec.reward.sha256, spec.held_out_reward and spec.held_out_reward.sha256) == ("r1", "w1")
    assert house.runs.newest_adapter("reports", "tiny", REWARD) == "r1"


def test_held_out_reward_model_alone_is_no_reward_adapter(house: House) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        handlers.create_run(house.ports, wanted(dataset_digest="p1", recipe="held_out_reward,rloo"))
    assert refused.value.reason == "NO_REWARD_ADAPTER"


def test_a_restart_resumes_at_the_stage(house: House) -> None:
    handlers.create_run(house.ports, wanted(recipe="polish", preference_dataset_digest="p1"))
    house.supervisor.tick()
    finish(house, "a1")
    run_id = house.only_run().run_id
    house.launcher.exits[run_id, 2] = -9
    house.supervisor.tick()
    house.supervisor.tick()
    run = house.only_run()
    assert (run.stage, run.epoch, run.failures) == (1, 3, 1)
    assert house.launcher.started[-1].stage.recipe == "dpo"


def test_failures_and_steps_are_reset_in_each_stage(house: House) -> None:
    run_id = handlers.create_run(house.ports, wanted(recipe="polish", preference_dataset_digest="p1")).run_id
    house.supervisor.tick()
    reporting.report_progress(house.runs, run_id, 1, progress(8), house.now())
    finish(house, "a1")
    for epoch in range(2, MAX_ATTEMPTS + 2):
        house.launcher.exits[run_id, epoch] = 1
        house.supervisor.tick()
        house.now.forward(100)
        house.supervisor.tick()
    run = house.only_run()
    assert (run.state, run.best_step, run.failures) == (RunState.FAILED, 0, MAX_ATTEMPTS)


def test_next_stage_starts_after_the_last_worker_has_ended(house: House) -> None:
    run_id = handlers.create_run(house.ports, wanted(recipe="polish", preference_dataset_digest="p1")).run_id
    house.supervisor.tick()
    reporting.report_trained(house.runs, run_id, 1, trained("a1"), rates=RATES, now=house.now())
    house.supervisor.tick()
    assert (house.only_run().epoch, house.only_run().reason) == (1, "NEXT_STAGE")
    assert house.launcher.stopped == []
    house.launcher.exits[run_id, 1] = 0
    house.supervisor.tick()
    assert (house.only_run().state, house.only_run().epoch) == (RunState.RUNNING, 2)


def test_worker_that_does_not_end_after_its_stage_is_stopped_and_given_up(house: House) -> None:
    run_id = handlers.create_run(house.ports, wanted(recipe="polish", preference_dataset_digest="p1")).run_id
    house.supervisor.tick()
    reporting.report_trained(house.runs, run_id, 1, trained("a1"), rates=RATES, now=house.now())
    house.supervisor.tick()
    house.now.forward(31)
    house.supervisor.tick()
    assert house.launcher.stopped == [(run_id, 1)]
    house.now.forward(31)
    house.supervisor.tick()
    assert house.only_run().epoch == 2


def test_trained_report_of_an_earlier_stage_is_rejected(house: House) -> None:
    run_id = handlers.create_run(house.ports, wanted(recipe="polish", preference_dataset_digest="p1")).run_id
    house.supervisor.tick()
    finish(house, "a1")
    with pytest.raises(Aborted):
        reporting.report_trained(house.runs, run_id, 1, trained("a9"), rates=RATES, now=house.now())
    assert house.runs.topics() == ["adapter.trained.v1"]
    assert house.only_run().stage == 1


def test_cancel_works_between_stages(house: House) -> None:
    run_id = handlers.create_run(house.ports, wanted(recipe="polish")).run_id
    house.supervisor.tick()
    finish(house, "a1")
    assert house.only_run().reason == "WAITS_FOR_RANKINGS"
    assert handlers.cancel_run(house.runs, run_id, house.now()).state is RunState.CANCELLED
    house.supervisor.tick()
    assert len(house.launcher.started) == 1
    with pytest.raises(FailedPrecondition):
        handlers.cancel_run(house.runs, run_id, house.now())


def test_new_rankings_go_to_every_waiting_run(house: House) -> None:
    handlers.create_run(house.ports, wanted(recipe="chain"))
    house.supervisor.tick()
    finish(house, "a1")
    assert (house.only_run().state, house.only_run().reason) == (RunState.QUEUED, "WAITS_FOR_RANKINGS")
    for _ in range(2):
        assert queue_run_for_dataset(house.ports, built_as("p1", "sft")) is None
    house.supervisor.tick()
    run = house.only_run()
    assert (run.state, run.preferences, run.current.recipe) == (RunState.RUNNING, "p1", "reward")
    assert [stage.dataset and stage.dataset.sha256 for stage in house.planner.asked[-1].stages] == ["d1", "p1", "p1"]


def test_rankings_of_another_specialist_are_not_assigned(house: House) -> None:
    handlers.create_run(house.ports, wanted(recipe="polish"))
    assert queue_run_for_dataset(house.ports, replace(built_as("p1", "sft"), specialist="memos")) is None
    assert house.only_run().lacks_rankings


def test_learned_reward_is_the_specialists_newest_if_the_run_makes_none(house: House) -> None:
    house.adapters.adapters["r0"] = adapter("r0", kind="reward")
    house.runs.adapters = {"r0": ("reports", "tiny", REWARD)}
    handlers.create_run(house.ports, wanted(dataset_digest="p1", recipe="rloo"))
    house.supervisor.tick()
    (job,) = house.launcher.started
    assert job.stage.reward == house.adapters.adapters["r0"].manifest


def test_run_without_any_reward_adapter_is_rejected(house: House) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        handlers.create_run(house.ports, wanted(dataset_digest="p1", recipe="rloo"))
    assert refused.value.reason == "NO_REWARD_ADAPTER"
    with pytest.raises(FailedPrecondition):
        handlers.plan_run(house.ports, wanted(dataset_digest="p1", recipe="rloo"))


def test_reward_stage_after_its_use_is_rejected(house: House) -> None:
    chain = wanted(recipe="backwards", preference_dataset_digest="p1")
    with pytest.raises(FailedPrecondition) as refused:
        handlers.create_run(house.ports, chain)
    assert refused.value.reason == "NO_REWARD_ADAPTER"
    assert handlers.create_run(house.ports, replace(chain, recipe="chain")).stages[1].method == "reward"


def test_run_learns_only_from_datasets_of_its_specialist(house: House) -> None:
    for other in (
        {"dataset_digest": "d1@memos"},
        {"recipe": "chain", "preference_dataset_digest": "p1@memos"},
        {"specialist": "memos"},
    ):
        with pytest.raises(InvalidArgument, match="was built for the specialist") as refused:
            handlers.create_run(house.ports, wanted(**other))
        assert refused.value.reason == "WRONG_SPECIALIST"


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": "dpo"},
        {"recipe": "chain", "dataset_digest": "p1"},
        {"recipe": "tiny", "preference_dataset_digest": "p1"},
        {"recipe": "chain", "preference_dataset_digest": "d2"},
        {"recipe": "dpo", "dataset_digest": "p1", "preference_dataset_digest": "p2"},
        {"recipe": "heavy", "preference_dataset_digest": "p1"},
        {"recipe": "full", "parent_digest": "a0"},
        {"recipe": "narrow", "dataset_digest": "p1", "parent_digest": "a0"},
        {"recipe": "narrowing", "preference_dataset_digest": "p1"},
        {"priority": 101},
        {"specialist": ""},
    ],
)
def test_impossible_request_is_rejected(house: House, changes: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        handlers.create_run(house.ports, wanted(**changes))
    with pytest.raises(InvalidArgument):
        handlers.plan_run(house.ports, wanted(**changes))
    assert not house.runs.runs


def test_parent_must_be_a_policy_of_the_base_and_the_specialist(house: House) -> None:
    for number, wrong in enumerate(({"kind": "reward"}, {"weights": "full"}, {"specialist": "x"}, {"base": "other"})):
        house.adapters.adapters[f"w{number}"] = adapter(f"w{number}", **wrong)
        with pytest.raises(FailedPrecondition) as refused:
            handlers.create_run(house.ports, wanted(parent_digest=f"w{number}"))
        assert refused.value.reason == "WRONG_PARENT"
    with pytest.raises(NotFound):
        handlers.create_run(house.ports, wanted(parent_digest="unknown"))
    with pytest.raises(NotFound):
        handlers.create_run(house.ports, wanted(recipe="polish", preference_dataset_digest="unknown"))


def test_same_key_is_the_same_run(house: House) -> None:
    runs = [
        handlers.create_run(house.ports, wanted(**changes))
        for changes in (
            {"recipe": "polish"},
            {"recipe": "polish"},
            {"recipe": "polish", "parent_digest": "a0"},
            {"recipe": "polish", "preference_dataset_digest": "p1"},
            {"recipe": "polish", "priority": 7},
        )
    ]
    ids = [run.run_id for run in runs]
    assert ids[0] == ids[1] == ids[4]
    assert len(set(ids)) == 3
