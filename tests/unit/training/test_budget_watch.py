"""Runs that take longer than their forecast are stopped before their specialist's budget is exceeded."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from services.training import handlers, reporting
from services.training.domain import RETRIABLE_EXIT, Failure, Run, RunState
from services.training.spending import first_of_month, price_month
from tailor.errors import Reason, Unavailable
from tests.unit.training.chains import write_recipes
from tests.unit.training.fakes import House, priced, progress, set_budget, trained, wanted

# The fake plan has two devices at 3.60 EUR per hour.
PER_SECOND = 2 * 3.6 / 3600
LOOK_SECONDS = 5


def start(house: House, *, forecast: float, budget: float) -> Run:
    set_budget(house, budget)
    priced(house, forecast)
    run = handlers.create_run(house.ports, wanted())
    house.supervisor.tick()
    reporting.heartbeat(house.runs, run.run_id, 1, house.now())
    return run


def resume(house: House) -> None:
    run = handlers.create_run(house.ports, wanted())
    assert (run.state, run.epoch) == (RunState.QUEUED, 1)
    house.supervisor.tick()
    reporting.heartbeat(house.runs, run.run_id, 2, house.now())


def work(house: House, seconds: float) -> None:
    """Let the worker report and the watch look every five seconds, until the worker is asked to end or the time is over."""
    for step in range(round(seconds / LOOK_SECONDS)):
        house.now.forward(LOOK_SECONDS)
        run = house.only_run()
        report = progress(step + 1, total_steps=10_000)
        assert not reporting.report_progress(house.runs, run.run_id, run.epoch, report, house.now())
        house.budget_watch.tick()
        house.supervisor.tick()
        if house.only_run().stopping:
            return


def end_worker(house: House, code: int = RETRIABLE_EXIT) -> Run:
    run = house.only_run()
    house.launcher.exits[run.run_id, run.epoch] = code
    house.supervisor.tick()
    return house.only_run()


def used(house: House, run_id: str = "") -> float:
    run = house.runs.runs[run_id] if run_id else house.only_run()
    return price_month(run, first_of_month(house.now()))


@pytest.mark.parametrize("forecast", [0.2, 0.5, 0.99])
def test_a_budget_of_1_eur_stops_a_run_that_takes_longer_than_its_forecast_before_it_is_passed(forecast: float) -> None:
    house = House()
    run = start(house, forecast=forecast, budget=1.0)
    work(house, 3600)
    asked = house.only_run()
    assert (asked.state, asked.reason) == (RunState.RUNNING, "OVER_BUDGET")
    assert house.launcher.stopped == [(run.run_id, 1)]
    stopped = end_worker(house)
    assert (stopped.state, stopped.reason) == (RunState.FAILED, "OVER_BUDGET")
    assert forecast - LOOK_SECONDS * PER_SECOND <= used(house) <= 1.0
    assert f"stopped at {used(house):.2f} EUR, forecast at {forecast:.2f} EUR" in stopped.message
    assert house.runs.published[-1] == ("run.failed.v1", "OVER_BUDGET")
    assert handlers.list_runs(house.runs, "reports", 5, "")[0] == [stopped]


def test_the_worker_has_time_to_save_and_reports_meanwhile() -> None:
    house = House()
    run = start(house, forecast=0.2, budget=1.0)
    work(house, 3600)
    asked = used(house)
    assert 1.0 - asked >= house.launcher.ends_within.total_seconds() * PER_SECOND
    for second in range(30):
        house.now.forward(1)
        report = progress(500 + second, total_steps=10_000)
        assert not reporting.report_progress(house.runs, run.run_id, 1, report, house.now())
        house.supervisor.tick()
        house.budget_watch.tick()
    assert house.only_run().best_step == 529 and house.launcher.stopped == [(run.run_id, 1)]
    assert handlers.create_run(house.ports, wanted()).state is RunState.RUNNING
    assert end_worker(house).state is RunState.FAILED and used(house) == asked


@pytest.mark.parametrize("code", [RETRIABLE_EXIT, -9, 1, 0])
def test_a_stopped_worker_is_not_replaced_however_it_ends(code: int) -> None:
    house = House()
    start(house, forecast=0.2, budget=1.0)
    work(house, 3600)
    assert end_worker(house, code).reason == "OVER_BUDGET"
    house.supervisor.tick()
    assert len(house.launcher.started) == 1 and house.runs.workers() == []


def test_a_stopped_worker_that_is_silent_or_has_no_place_is_not_replaced() -> None:
    for waiting in (None, Failure("WAITS_FOR_NODE", "No node has room.")):
        house = House()
        start(house, forecast=0.2, budget=1.0)
        work(house, 3600)
        house.launcher.waiting = waiting
        house.now.forward(31)
        house.supervisor.tick()
        assert (house.only_run().state, house.only_run().reason) == (RunState.FAILED, "OVER_BUDGET")


def test_the_result_of_a_worker_that_was_almost_done_is_kept() -> None:
    house = House()
    run = start(house, forecast=0.2, budget=1.0)
    work(house, 3600)
    assert not reporting.report_trained(house.runs, run.run_id, 1, trained(), rates=house.ports.rates, now=house.now())
    assert house.only_run().state is RunState.SUCCEEDED
    assert house.runs.topics()[-1] == "adapter.trained.v1"


def test_a_worker_that_saves_and_proves_its_result_is_not_stopped() -> None:
    house = House()
    run = start(house, forecast=0.5, budget=1.0)
    for phase, step in (("training", 8), ("saving", 8), ("verifying", 8)):
        report = progress(step, phase=phase)
        assert not reporting.report_progress(house.runs, run.run_id, 1, report, house.now())
        house.now.forward(600)
        reporting.heartbeat(house.runs, run.run_id, 1, house.now())
        house.budget_watch.tick()
        assert house.only_run().stopping is None


def test_a_stage_that_ends_after_its_run_was_stopped_is_not_followed_by_the_next(tmp_path: Path) -> None:
    house = House(write_recipes(tmp_path))
    set_budget(house, 1.0)
    priced(house, 0.2)
    run = handlers.create_run(house.ports, wanted(recipe="chain", preference_dataset_digest="p1"))
    house.supervisor.tick()
    reporting.heartbeat(house.runs, run.run_id, 1, house.now())
    set_budget(house, 0.005)
    house.budget_watch.tick()
    reporting.report_trained(house.runs, run.run_id, 1, trained(), rates=house.ports.rates, now=house.now())
    ended = house.only_run()
    assert (ended.state, ended.reason, ended.stage) == (RunState.FAILED, "OVER_BUDGET", 1)
    assert house.runs.topics() == ["adapter.trained.v1", "run.failed.v1"]


def test_a_run_is_not_stopped_within_its_forecast() -> None:
    house = House()
    start(house, forecast=0.99, budget=1.0)
    work(house, 0.97 / PER_SECOND)
    assert house.only_run().stopping is None


def test_what_else_the_specialist_uses_meanwhile_stops_its_run() -> None:
    house = House()
    start(house, forecast=0.9, budget=1.0)
    work(house, 100)
    house.other_costs.amounts = {"reports": 0.7, "others": 90.0}
    work(house, 100)
    assert end_worker(house).reason == "OVER_BUDGET" and used(house) <= 0.36


def test_another_run_keeps_its_forecast() -> None:
    house = House()
    run = start(house, forecast=0.4, budget=1.0)
    assert handlers.create_run(house.ports, wanted(recipe="lora")).state is RunState.QUEUED
    for _ in range(100):
        house.now.forward(LOOK_SECONDS)
        reporting.heartbeat(house.runs, run.run_id, 1, house.now())
        house.budget_watch.tick()
    assert house.runs.runs[run.run_id].reason == "OVER_BUDGET" and used(house, run.run_id) <= 0.6


def test_a_lowered_budget_stops_a_run_and_none_lets_it_go_on() -> None:
    house = House()
    start(house, forecast=0.5, budget=1.0)
    set_budget(house, 0.0)
    work(house, 1000)
    assert house.only_run().stopping is None and used(house) > 1.0
    set_budget(house, 1.0)
    house.budget_watch.tick()
    assert house.only_run().reason == "OVER_BUDGET"


def test_without_an_answer_of_the_registry_its_last_answer_of_the_month_counts() -> None:
    house = House()
    house.other_costs.amounts = {"reports": 0.3}
    start(house, forecast=0.2, budget=1.0)
    house.budget_watch.tick()
    house.other_costs.fails = Unavailable(Reason.UNAVAILABLE, "It does not answer.")
    work(house, 3600)
    assert house.only_run().reason == "OVER_BUDGET" and 0.5 < used(house) <= 0.7
    end_worker(house)
    house.now.forward(timedelta(days=31).total_seconds())
    house.other_costs.fails = None
    house.other_costs.amounts = {}
    resume(house)
    house.other_costs.fails = Unavailable(Reason.UNAVAILABLE, "It does not answer.")
    work(house, 3600)
    assert 0.8 < used(house) <= 1.0


def test_time_in_which_the_service_was_down_and_no_worker_reported_is_not_counted() -> None:
    house = House()
    start(house, forecast=0.5, budget=1.0)
    work(house, 100)
    house.now.forward(7200)
    house.budget_watch.tick()
    assert house.only_run().stopping is None


def test_a_run_that_waits_without_a_worker_is_not_stopped() -> None:
    house = House()
    start(house, forecast=0.2, budget=1.0)
    work(house, 300)
    end_worker(house)
    waiting = replace(house.only_run(), state=RunState.QUEUED)
    house.runs.save(waiting)
    house.other_costs.amounts = {"reports": 5.0}
    house.now.forward(61)
    house.budget_watch.tick()
    assert house.only_run() == waiting


def test_a_stopped_run_resumes_in_this_month_with_its_whole_forecast_after_the_budget_was_raised() -> None:
    house = House()
    start(house, forecast=0.5, budget=1.0)
    work(house, 3600)
    end_worker(house)
    first = used(house)
    set_budget(house, first + 0.51)
    resume(house)
    assert used(house) == first
    work(house, 0.48 / PER_SECOND)
    assert house.only_run().stopping is None
    work(house, 3600)
    assert first + 0.48 < used(house) <= first + 0.51


def test_a_stopped_run_resumes_next_month_with_a_whole_budget() -> None:
    house = House()
    start(house, forecast=0.5, budget=1.0)
    work(house, 3600)
    end_worker(house)
    first = used(house)
    house.now.forward(timedelta(days=31).total_seconds())
    assert used(house) == 0.0
    resume(house)
    assert house.only_run().epoch == 2 and used(house) == 0.0
    work(house, 3600)
    end_worker(house)
    assert house.only_run().reason == "OVER_BUDGET" and used(house) == pytest.approx(first)
    assert house.only_run().worked_seconds * PER_SECOND == pytest.approx(2 * first)


def test_a_run_that_works_on_in_a_new_month_counts_there_from_its_beginning() -> None:
    house = House()
    to_midnight = 26 * 86_400 + 15 * 3600
    house.now.forward(to_midnight - 400)
    start(house, forecast=0.5, budget=1.0)
    work(house, 400 + 300)
    assert house.only_run().stopping is None
    assert used(house) == pytest.approx(300 * PER_SECOND, abs=2 * LOOK_SECONDS * PER_SECOND)
    work(house, 3600)
    assert 0.9 < used(house) <= 1.0
