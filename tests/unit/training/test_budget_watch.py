"""Runs that take longer than their forecast are stopped before their specialist's budget is passed."""

from dataclasses import replace
from datetime import timedelta

import pytest

from services.training import handlers, reporting
from services.training.domain import RETRIABLE_EXIT, Run, RunState
from services.training.spending import first_of_month, price_month
from tailor.errors import Aborted, Reason, Unavailable
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


def work(house: House, run_id: str, seconds: int) -> None:
    """Let the worker report and the watch look every five seconds, until the run is stopped or the time is over."""
    for step in range(seconds // LOOK_SECONDS):
        house.now.forward(LOOK_SECONDS)
        reporting.report_progress(house.runs, run_id, house.only_run().epoch, progress(step + 1), house.now())
        house.budget_watch.tick()
        house.supervisor.tick()
        if house.only_run().state.ended:
            return


def spent(house: House) -> float:
    return price_month(house.only_run(), first_of_month(house.now()))


@pytest.mark.parametrize("forecast", [0.2, 0.5, 0.99])
def test_a_budget_of_1_eur_stops_a_run_that_takes_longer_than_its_forecast_before_it_is_passed(forecast: float) -> None:
    house = House()
    run = start(house, forecast=forecast, budget=1.0)
    work(house, run.run_id, 3600)
    stopped = house.only_run()
    assert (stopped.state, stopped.reason) == (RunState.FAILED, "OVER_BUDGET")
    assert forecast - LOOK_SECONDS * PER_SECOND <= spent(house) <= 1.0
    assert f"stopped at {spent(house):.2f} EUR, forecast at {forecast:.2f} EUR" in stopped.message
    assert house.runs.published[-1] == ("run.failed.v1", "OVER_BUDGET")
    assert house.launcher.stopped == [(run.run_id, 1)]


def test_its_worker_has_the_time_to_save_and_is_not_told_to_end_without_saving() -> None:
    house = House()
    run = start(house, forecast=0.2, budget=1.0)
    work(house, run.run_id, 3600)
    assert 1.0 - spent(house) >= house.launcher.ends_within.total_seconds() * PER_SECOND
    assert not reporting.heartbeat(house.runs, run.run_id, 1, house.now())
    assert not reporting.report_progress(house.runs, run.run_id, 1, progress(99), house.now())
    assert not reporting.report_log(house.runs, run.run_id, 1, [], house.now())
    house.now.forward(20)
    assert house.only_run().best_step < 99 and spent(house) < 1.0
    house.launcher.exits[run.run_id, 1] = RETRIABLE_EXIT
    house.supervisor.tick()
    assert house.runs.workers() == []
    with pytest.raises(Aborted):
        reporting.report_trained(house.runs, run.run_id, 1, trained(), rates=house.ports.rates, now=house.now())


def test_a_run_is_not_stopped_within_its_forecast() -> None:
    house = House()
    run = start(house, forecast=0.99, budget=1.0)
    work(house, run.run_id, int(0.97 / PER_SECOND))
    assert house.only_run().state is RunState.RUNNING


def test_what_else_the_specialist_uses_meanwhile_stops_its_run() -> None:
    house = House()
    run = start(house, forecast=0.9, budget=1.0)
    work(house, run.run_id, 100)
    house.other_costs.amounts = {"reports": 0.7, "others": 90.0}
    work(house, run.run_id, 100)
    assert house.only_run().reason == "OVER_BUDGET" and spent(house) <= 0.36


def test_another_run_keeps_its_forecast() -> None:
    house = House()
    run = start(house, forecast=0.4, budget=1.0)
    assert handlers.create_run(house.ports, wanted(recipe="lora")).state is RunState.QUEUED
    for _ in range(100):
        house.now.forward(LOOK_SECONDS)
        reporting.heartbeat(house.runs, run.run_id, 1, house.now())
        house.budget_watch.tick()
    stopped = house.runs.runs[run.run_id]
    assert stopped.reason == "OVER_BUDGET" and price_month(stopped, first_of_month(house.now())) <= 0.6


def test_a_lowered_budget_stops_a_run_and_none_lets_it_go_on() -> None:
    house = House()
    run = start(house, forecast=0.5, budget=1.0)
    set_budget(house, 0.0)
    work(house, run.run_id, 1000)
    assert house.only_run().state is RunState.RUNNING and spent(house) > 1.0
    set_budget(house, 1.0)
    house.budget_watch.tick()
    assert house.only_run().reason == "OVER_BUDGET"


def test_without_an_answer_of_the_registry_the_last_known_costs_count() -> None:
    house = House()
    house.other_costs.amounts = {"reports": 0.3}
    run = start(house, forecast=0.2, budget=1.0)
    house.budget_watch.tick()
    house.other_costs.fails = Unavailable(Reason.UNAVAILABLE, "It does not answer.")
    work(house, run.run_id, 3600)
    assert house.only_run().reason == "OVER_BUDGET" and 0.5 < spent(house) <= 0.7


def test_a_run_between_two_workers_is_not_started_again_over_its_budget() -> None:
    house = House()
    run = start(house, forecast=0.2, budget=1.0)
    work(house, run.run_id, 300)
    house.launcher.exits[run.run_id, 1] = RETRIABLE_EXIT
    house.supervisor.tick()
    set_budget(house, 0.5)
    house.runs.save(replace(house.only_run(), state=RunState.QUEUED))
    house.budget_watch.tick()
    assert house.only_run().reason == "OVER_BUDGET"


def test_a_stopped_run_resumes_next_month_with_a_whole_budget_and_in_this_one_after_it_was_raised() -> None:
    house = House()
    run = start(house, forecast=0.5, budget=1.0)
    work(house, run.run_id, 3600)
    first = spent(house)
    set_budget(house, 2.0)
    assert handlers.create_run(house.ports, wanted()).state is RunState.QUEUED
    handlers.cancel_run(house.runs, run.run_id, house.now())
    assert spent(house) == pytest.approx(first)
    set_budget(house, 1.0)
    house.now.forward(timedelta(days=31).total_seconds())
    assert spent(house) == 0.0
    resumed = handlers.create_run(house.ports, wanted())
    assert (resumed.run_id, resumed.state, resumed.epoch) == (run.run_id, RunState.QUEUED, 1)
    house.supervisor.tick()
    assert house.only_run().epoch == 2 and spent(house) == 0.0
    reporting.heartbeat(house.runs, run.run_id, 2, house.now())
    work(house, run.run_id, 3600)
    assert house.only_run().reason == "OVER_BUDGET" and spent(house) == pytest.approx(first)
    assert house.only_run().worked_seconds * PER_SECOND == pytest.approx(2 * first)
