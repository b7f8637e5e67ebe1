"""Runs whose forecast is above a limit wait for approval."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from services.training import handlers, pipeline, wire
from services.training.consumers import SPECIALISTS, Consumers
from services.training.domain import Run, RunState
from services.training.plans import HourLimits, Plan, limit_hours
from services.training.recipe import load_recipe
from services.training.run_approval import PART, ApprovalNotice, approve_run
from tailor.api.events.v1 import models_pb2
from tailor.api.training.v1 import training_pb2
from tailor.codec import encode
from tailor.errors import FailedPrecondition, Reason, Unavailable
from tailor.events.envelope import Event
from tailor.events.faults import Faults
from tests.unit.training.fakes import PLAN, House, built_as, set_budget, wanted

HOUR = 3600.0
ROOT = Path(__file__).parents[3]
# 86 hours on one CPU: 30 seconds around the steps, and each of 2 million tokens in two passes.
LONG = replace(PLAN, devices=1, seconds=86 * HOUR, fixed_seconds=30.0, train_token_seconds=(86 * HOUR - 30) / 2e6)


def house_with(plan: Plan = LONG) -> House:
    house = House()
    house.planner.answer = plan
    return house


def queue(house: House, digest: str = "d1") -> Run:
    pipeline.queue_run_for_dataset(house.ports, built_as(digest, "sft", minutes=int(digest[1])))
    house.supervisor.tick()
    return next(run for run in house.runs.runs.values() if run.key.dataset_digest == digest)


def set_hours(house: House, hours: float) -> None:
    message = models_pb2.SpecialistChanged(name="reports", max_training_hours=hours)
    Consumers(house.ports).on_specialist(Event(SPECIALISTS, "reports", message.SerializeToString()))


def test_a_datasets_run_above_the_limit_waits_and_never_starts_by_itself() -> None:
    house = house_with()
    run = queue(house)
    for _ in range(5):
        house.now.forward(3600)
        house.supervisor.tick()
    assert house.runs.runs[run.run_id] == run
    assert (run.state, run.reason) == (RunState.AWAITING_APPROVAL, "WAITS_FOR_APPROVAL")
    assert (run.epoch, run.lease_expires) == (0, None)
    assert house.launcher.started == []
    assert house.runs.topics() == []
    assert len(house.planner.asked) == 1
    message = wire.from_run(run)
    assert (message.state, message.plan.needs_approval) == (training_pb2.RUN_STATE_AWAITING_APPROVAL, True)


def test_its_message_names_the_forecast_the_limit_the_command_and_a_setting_that_fits() -> None:
    run = queue(house_with())
    assert "forecast at 86 hours, above the limit of 2" in run.message
    assert f"`tailor run approve {run.run_id}`" in run.message
    (setting,) = [part for part in run.message.split("`") if part.startswith("max_train_tokens")]
    tokens = tomllib.loads(setting)["max_train_tokens"]
    assert run.plan is not None and run.plan.fitting_train_tokens == tokens
    # 2 of 86 hours, with the margin.
    assert 40_000 <= tokens <= 2e6 * 2 / 86
    fits = replace(LONG, seconds=LONG.fixed_seconds + tokens * LONG.train_token_seconds)
    assert not limit_hours(fits, HourLimits(), 0.0).needs_approval


@pytest.mark.parametrize(
    ("plan", "waits"),
    [
        (replace(LONG, seconds=1.9 * HOUR), False),
        (replace(LONG, seconds=2.1 * HOUR), True),
        (replace(LONG, seconds=2.9 * HOUR, devices=8, gpu=True), False),
        (replace(LONG, seconds=3.1 * HOUR, devices=8, gpu=True), True),
    ],
)
def test_the_limit_counts_device_hours_and_is_another_one_on_gpus(plan: Plan, waits: bool) -> None:
    assert (queue(house_with(plan)).state is RunState.AWAITING_APPROVAL) is waits


def test_a_specialists_own_limit_can_only_be_lower_than_the_installations() -> None:
    house = house_with(replace(LONG, seconds=HOUR))
    set_hours(house, 0.5)
    run = queue(house)
    assert "above the limit of 0.5" in run.message
    house = house_with()
    set_hours(house, 100.0)
    assert "above the limit of 2" in queue(house).message


def test_a_run_created_by_hand_above_the_limit_waits_too() -> None:
    house = house_with()
    run = handlers.create_run(house.ports, wanted())
    assert run.state is RunState.AWAITING_APPROVAL
    assert handlers.create_run(house.ports, wanted()) == run


def test_a_stored_plan_is_held_against_the_limit_of_now() -> None:
    house = house_with(replace(LONG, seconds=HOUR))
    assert not handlers.plan_run(house.ports, wanted()).needs_approval
    set_hours(house, 0.5)
    assert handlers.create_run(house.ports, wanted()).state is RunState.AWAITING_APPROVAL
    assert len(house.planner.asked) == 1


def test_approval_starts_the_run_and_records_who_approved_it() -> None:
    house = house_with()
    run_id = queue(house).run_id
    house.now.forward(60)
    run = approve_run(house.ports, run_id, "key_7")
    assert (run.state, run.reason, run.message) == (RunState.QUEUED, "", "")
    assert (run.approved_by, run.approve_time) == ("key_7", house.now())
    house.supervisor.tick()
    assert [job.run.run_id for job in house.launcher.started] == [run_id]
    message = wire.from_run(house.only_run())
    assert (message.approved_by, message.approve_time.seconds) == ("key_7", int(house.now().timestamp()))


def test_approving_twice_is_the_same_and_an_approved_run_that_was_cancelled_resumes_without_asking() -> None:
    house = house_with()
    run_id = queue(house).run_id
    approved = approve_run(house.ports, run_id, "key_7")
    assert approve_run(house.ports, run_id, "key_8") == approved
    handlers.cancel_run(house.runs, run_id, house.now())
    with pytest.raises(FailedPrecondition) as refused:
        approve_run(house.ports, run_id, "key_7")
    assert refused.value.reason == "RUN_NOT_WAITING"
    assert handlers.create_run(house.ports, wanted()).state is RunState.QUEUED


def test_a_run_that_does_not_wait_cannot_be_approved() -> None:
    house = house_with(PLAN)
    run_id = queue(house).run_id
    with pytest.raises(FailedPrecondition) as refused:
        approve_run(house.ports, run_id, "key_7")
    assert refused.value.reason == "RUN_NOT_WAITING"


def test_a_waiting_run_can_be_cancelled() -> None:
    house = house_with()
    run_id = queue(house).run_id
    assert handlers.cancel_run(house.runs, run_id, house.now()).state is RunState.CANCELLED
    # Nobody approved it, so it waits again.
    assert handlers.create_run(house.ports, wanted()).state is RunState.AWAITING_APPROVAL


def test_a_newer_dataset_supersedes_a_waiting_run() -> None:
    house = house_with()
    first = queue(house)
    house.planner.answer = PLAN
    second = queue(house, "d2")
    assert house.runs.runs[first.run_id].reason == "SUPERSEDED"
    assert second.state is RunState.RUNNING


def test_a_waiting_run_reserves_no_budget_and_is_checked_against_it_when_it_is_approved() -> None:
    house = house_with()
    first = queue(house)
    set_budget(house, 10.0)
    house.planner.answer = replace(PLAN, seconds=60.0)
    assert handlers.create_run(house.ports, wanted(recipe="lora")).state is RunState.QUEUED
    # 86 hours at 3.60 EUR.
    with pytest.raises(FailedPrecondition) as refused:
        approve_run(house.ports, first.run_id, "key_7")
    assert refused.value.reason == "OVER_BUDGET"
    assert house.runs.runs[first.run_id].state is RunState.AWAITING_APPROVAL


def test_new_rankings_make_a_new_forecast_of_a_waiting_run() -> None:
    house = house_with()
    run = handlers.create_run(house.ports, wanted(recipe="lora,dpo"))
    assert run.state is RunState.AWAITING_APPROVAL
    house.planner.answer = PLAN
    pipeline.queue_run_for_dataset(house.ports, built_as("p1", "sft"))
    house.supervisor.tick()
    assert house.runs.runs[run.run_id].state is RunState.RUNNING


def test_a_forecast_that_is_not_possible_yet_waits_as_before_and_blocks_no_other_run() -> None:
    house = house_with()
    house.planner.error = Unavailable(Reason.OBJECT_STORE_UNAVAILABLE, "The store is away.")
    run = queue(house)
    assert (run.state, run.reason) == (RunState.QUEUED, "OBJECT_STORE_UNAVAILABLE")


def test_no_setting_is_proposed_if_none_would_fit() -> None:
    house = house_with(replace(LONG, fixed_seconds=3 * HOUR))
    run = queue(house)
    assert run.plan is not None and run.plan.fitting_train_tokens == 0
    assert "max_train_tokens" not in run.message
    assert "or use a smaller recipe or base" in run.message


def count_shown() -> float | None:
    return REGISTRY.get_sample_value("tailor_runs_awaiting_approval")


def test_operators_see_waiting_runs_as_a_notice_and_a_metric_until_they_are_approved() -> None:
    house, faults = house_with(), Faults()
    notice = ApprovalNotice(house.runs, faults)
    run = queue(house)
    notice.tick()
    notice.tick()
    (fault,) = faults.all()
    assert (fault.part, fault.reason, fault.waits) == (PART, "WAITS_FOR_APPROVAL", False)
    assert run.message in fault.message
    assert count_shown() == 1
    approve_run(house.ports, run.run_id, "key_7")
    notice.tick()
    assert not faults.all()
    assert count_shown() == 0


def test_a_run_of_the_demo_is_far_below_the_limit() -> None:
    sample = tomllib.loads((ROOT / "deploy/sample/specialist.toml").read_text(encoding="utf-8"))
    tokens = sample["rows"]["max_train_tokens"] * load_recipe(sample["recipe"]).limit.epochs
    # 11 per second is the slowest that a busy machine of two cores has had.
    run = queue(house_with(replace(LONG, seconds=tokens / 11)))
    assert run.state is RunState.RUNNING


def test_a_plan_says_which_run_it_forecasts() -> None:
    house = house_with()
    plan = handlers.plan_run(house.ports, wanted())
    assert plan.run_id == encode(training_pb2.RunPlan, plan).run_id == handlers.create_run(house.ports, wanted()).run_id
