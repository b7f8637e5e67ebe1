"""Plans, reports and prices of runs."""

from dataclasses import replace
from pathlib import Path

import pytest

from services.training import handlers, pipeline, reporting
from services.training.domain import Run, RunState
from services.training.plans import Plan
from services.training.ports import Planner, PlanRequest
from services.training.supervisor import Preparer
from tailor.api.training.v1 import training_pb2
from tailor.codec import encode
from tailor.errors import FailedPrecondition, Reason, Unavailable
from tests.unit.training.chains import write_recipes
from tests.unit.training.fakes import PLAN, RATES, House, built, progress, trained, wanted

TOO_BIG = replace(PLAN, fits=False, refusal="It needs 9 GiB of 4 GiB.", nearest_recipe="qlora")


def test_stored_plan_is_used_by_its_run() -> None:
    house = House()
    plan = handlers.plan_run(house.ports, wanted())
    assert not house.runs.runs
    run = handlers.create_run(house.ports, wanted())
    assert run.plan == plan
    assert len(house.planner.asked) == 1
    house.supervisor.tick()
    assert len(house.planner.asked) == 1


def test_expired_or_refused_plan_is_made_again() -> None:
    house = House()
    house.planner.answer = TOO_BIG
    handlers.plan_run(house.ports, wanted())
    house.planner.answer = PLAN
    assert handlers.create_run(house.ports, wanted()).plan is not None
    handlers.plan_run(house.ports, wanted(recipe="lora"))
    house.now.forward(3601)
    handlers.create_run(house.ports, wanted(recipe="lora"))
    assert len(house.planner.asked) == 4


def test_run_that_does_not_fit_is_rejected_with_the_nearest_recipe() -> None:
    house = House()
    house.planner.answer = TOO_BIG
    assert handlers.plan_run(house.ports, wanted()).fits is False
    with pytest.raises(FailedPrecondition, match="qlora") as refused:
        handlers.create_run(house.ports, wanted())
    assert refused.value.reason == "DOES_NOT_FIT"
    assert not house.runs.runs


def test_datasets_run_that_does_not_fit_fails_once_and_starts_no_worker() -> None:
    house = House()
    house.planner.answer = TOO_BIG
    pipeline.queue_run_for_dataset(house.ports, built())
    for _ in range(3):
        house.supervisor.tick()
    run = house.only_run()
    assert (run.state, run.reason, run.plan and run.plan.fits) == (RunState.FAILED, "DOES_NOT_FIT", False)
    assert "qlora" in run.message
    assert house.runs.topics() == ["run.failed.v1"]
    assert house.launcher.started == []
    assert len(house.planner.asked) == 1


def test_run_waits_while_it_cannot_be_planned_and_fails_if_it_never_can() -> None:
    house = House()
    house.planner.error = Unavailable(Reason.OBJECT_STORE_UNAVAILABLE, "The store is away.")
    pipeline.queue_run_for_dataset(house.ports, built())
    house.supervisor.tick()
    assert (house.only_run().state, house.only_run().reason) == (RunState.QUEUED, "OBJECT_STORE_UNAVAILABLE")
    house.supervisor.tick()
    assert len(house.planner.asked) == 1
    house.now.forward(6)
    house.supervisor.tick()
    for _ in range(6):
        house.now.forward(76)
        house.supervisor.tick()
    assert house.only_run().state is RunState.QUEUED
    house.now.forward(59)
    house.supervisor.tick()
    assert len(house.planner.asked) == 8
    house.planner.error = FailedPrecondition(Reason.CORRUPT_OBJECT, "The dataset is torn.")
    house.now.forward(17)
    house.supervisor.tick()
    assert (house.only_run().state, house.only_run().reason) == (RunState.FAILED, "CORRUPT_OBJECT")


class CancellingPlanner(Planner):
    """A planner that cancels the run while it plans."""

    def __init__(self, house: House) -> None:
        self.house = house

    def plan(self, request: PlanRequest) -> Plan:
        del request
        handlers.cancel_run(self.house.runs, self.house.only_run().run_id, self.house.now())
        return PLAN


def test_run_cancelled_during_planning_stays_cancelled() -> None:
    house = House()
    pipeline.queue_run_for_dataset(house.ports, built())
    Preparer(replace(house.ports, planner=CancellingPlanner(house))).tick()
    house.supervisor.tick()
    assert house.only_run().state is RunState.CANCELLED
    assert house.launcher.started == []


def test_price_has_device_hours_teacher_tokens_and_judgements(tmp_path: Path) -> None:
    house = House(write_recipes(tmp_path))
    plan = handlers.plan_run(house.ports, wanted())
    price = plan.price
    assert plan.hourly_price == pytest.approx(plan.devices * 3.6)
    # Two devices for 20 seconds at 3.60 per hour; two million teacher tokens at 5.00 per million.
    assert (price.currency, price.teacher, price.annotation) == ("EUR", 10.0, 0.0)
    assert price.compute == pytest.approx(0.04)
    assert price.total == pytest.approx(10.04)
    assert handlers.plan_run(house.ports, wanted(dataset_digest="p1", recipe="dpo")).price.annotation == 60.0


def run_to_its_end(house: House) -> Run:
    run_id = handlers.create_run(house.ports, wanted()).run_id
    house.supervisor.tick()
    house.now.forward(50)
    for epoch, seconds in ((1, 4), (2, 12)):
        reporting.report_progress(house.runs, run_id, epoch, progress(epoch), house.now())
        house.now.forward(seconds)
        if epoch == 1:
            reporting.heartbeat(house.runs, run_id, epoch, house.now())
            house.launcher.exits[run_id, epoch] = 1
            house.supervisor.tick()
            house.now.forward(30)
            house.supervisor.tick()
    made = replace(trained(), rows=6, tokens=500, memory_bytes=800, rows_skipped=2)
    reporting.report_trained(house.runs, run_id, 2, made, rates=RATES, now=house.now())
    return house.only_run()


def test_report_has_the_errors_of_the_plan() -> None:
    report = run_to_its_end(House()).report
    assert report is not None
    assert (report.rows, report.tokens, report.steps, report.memory_bytes) == (6, 500, 8, 800)
    assert report.rows_skipped == encode(training_pb2.RunReport, report).rows_skipped == 2
    assert report.tokens_error == pytest.approx(400 / 500 - 1)
    assert report.memory_error == pytest.approx(1000 / 800 - 1)


def test_duration_of_a_run_excludes_waiting() -> None:
    report = run_to_its_end(House()).report
    assert report is not None
    assert report.seconds == 16.0
    assert report.seconds_error == pytest.approx(20 / 16 - 1)
    assert report.price.compute == pytest.approx(2 * 16 / 3600 * 3.6)
    assert report.price.teacher == 10.0
