"""Plans and budgets over the database: what a run may cost, and what happens when it costs more."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from services.training import handlers
from services.training.domain import RETRIABLE_EXIT, Failure, Run, RunState
from services.training.spending import first_of_month, price_month
from tailor.errors import FailedPrecondition, Reason, Unavailable
from tests.integration.training_service import House, training_service
from tests.unit.training.fakes import PLAN

pytestmark = pytest.mark.integration

TOO_BIG = replace(PLAN, fits=False, refusal="It needs 9 GiB of 4 GiB.", nearest_recipe="qlora")
SILENT = Unavailable(Reason.UNAVAILABLE, "It does not answer.")
# The fake plan has two devices at 3.60 EUR per hour.
PER_SECOND = 2 * 3.6 / 3600
LOOK_SECONDS = 20


@pytest.fixture
def house(database_url: str, tmp_path: Path) -> Iterator[House]:
    with training_service(database_url, tmp_path) as house:
        yield house


def refusal(house: House, **changes: str) -> FailedPrecondition:
    with pytest.raises(FailedPrecondition) as refused:
        house.create(**changes)
    return refused.value


def test_a_stored_plan_is_used_for_an_hour_if_it_fits(house: House) -> None:
    house.forecast = TOO_BIG
    plan = handlers.plan_run(house.ports, house.wanted())
    refused = refusal(house)
    assert (plan.fits, refused.reason, "qlora" in refused.message) == (False, "DOES_NOT_FIT", True)
    assert house.runs.page() == []
    house.forecast = PLAN
    plan = handlers.plan_run(house.ports, house.wanted())
    run = house.create()
    assert (run.plan, plan.run_id, len(house.forecasts)) == (plan, run.run_id, 3)
    house.supervisor.tick()
    handlers.plan_run(house.ports, house.wanted(recipe="other"))
    house.now.forward(3601)
    house.create(recipe="other")
    assert len(house.forecasts) == 5
    # Two devices for 20 seconds at 3.60 per hour; two million teacher tokens at 5.00 per million.
    price = plan.price
    assert (price.currency, price.teacher, price.annotation) == ("EUR", 10.0, 0.0)
    assert (price.compute, price.total) == pytest.approx((0.04, 10.04))
    assert plan.hourly_price == pytest.approx(2 * 3.6)
    assert handlers.plan_run(house.ports, house.wanted(dataset_digest="p1", recipe="dpo")).price.annotation == 60.0


def test_a_datasets_run_that_does_not_fit_fails_once_and_starts_no_worker(house: House) -> None:
    house.forecast = TOO_BIG
    house.publish()
    for _ in range(3):
        house.supervisor.tick()
    run = house.only_run()
    assert (run.state, run.reason, run.plan and run.plan.fits) == (RunState.FAILED, "DOES_NOT_FIT", False)
    assert (house.topics(), house.launcher.started, len(house.forecasts)) == (["run.failed.v1"], [], 1)


def test_a_run_waits_longer_and_longer_to_be_planned_and_fails_if_it_never_can(house: House) -> None:
    house.forecast = Unavailable(Reason.OBJECT_STORE_UNAVAILABLE, "The store is away.")
    house.start()
    assert (house.only_run().state, house.only_run().reason) == (RunState.QUEUED, "OBJECT_STORE_UNAVAILABLE")
    for seconds, forecasts in ((0, 1), (6, 2), (76, 3), (76, 4), (76, 5), (76, 6), (59, 6)):
        house.now.forward(seconds)
        house.supervisor.tick()
        assert len(house.forecasts) == forecasts
    house.forecast = FailedPrecondition(Reason.CORRUPT_OBJECT, "The dataset is torn.")
    house.now.forward(17)
    house.supervisor.tick()
    assert (house.only_run().state, house.only_run().reason) == (RunState.FAILED, "CORRUPT_OBJECT")


def test_a_report_compares_the_run_with_its_plan_without_the_time_of_waiting(house: House) -> None:
    run_id = house.create().run_id
    house.supervisor.tick()
    house.now.forward(50)
    house.step(run_id, 1, 1)
    house.now.forward(4)
    house.beat(run_id, 1)
    house.end(run_id, 1, 1)
    house.now.forward(30)
    house.supervisor.tick()
    house.step(run_id, 2, 2)
    house.now.forward(12)
    house.trained(run_id, 2, rows=6, tokens=500, memory_bytes=800, rows_skipped=2)
    report = house.only_run().report
    assert report is not None
    assert (report.rows, report.tokens, report.steps, report.memory_bytes, report.rows_skipped) == (6, 500, 8, 800, 2)
    assert report.tokens_error == pytest.approx(400 / 500 - 1)
    assert report.memory_error == pytest.approx(1000 / 800 - 1)
    assert (report.seconds, report.seconds_error) == pytest.approx((16.0, 20 / 16 - 1))
    assert (report.price.compute, report.price.teacher) == pytest.approx((2 * 16 / 3600 * 3.6, 10.0))


def test_a_budget_refuses_a_run_before_it_is_passed_and_counts_all_that_the_specialist_used(house: House) -> None:
    house.priced(1_000_000)
    assert handlers.plan_run(house.ports, house.wanted()).budget_left is None
    house.change_specialist(monthly_budget=1.0)
    house.priced(1.01)
    refused = refusal(house, recipe="other")
    assert refused.reason == "OVER_BUDGET"
    assert "forecast at 1.01 EUR, but 1.00 EUR of the monthly budget of 1.00 EUR" in refused.message
    # A dataset's run fails before its worker starts.
    house.start()
    run = house.only_run()
    assert (run.state, run.reason, run.epoch) == (RunState.FAILED, "OVER_BUDGET", 0)
    assert run.plan is not None and run.plan.budget_left == 1.0
    # A run that waits counts with its forecast.
    house.priced(0.6)
    run = house.create(recipe="full")
    assert house.create(recipe="full") == run
    assert handlers.plan_run(house.ports, house.wanted(recipe="other")).budget_left == pytest.approx(0.4)
    assert refusal(house, recipe="other").reason == "OVER_BUDGET"
    # One that ended counts in its month with what it took.
    month = first_of_month(house.now())
    with house.runs.unit() as unit:
        ended = replace(
            run, state=RunState.SUCCEEDED, end_time=house.now(), month=month, worked_seconds=0.3 / PER_SECOND
        )
        unit.save(ended)
    assert handlers.plan_run(house.ports, house.wanted(recipe="other")).budget_left == pytest.approx(0.7)
    house.costs = {"reports": 0.5, "others": 90.0}
    assert "0.20 EUR of the monthly budget of 1.00 EUR" in refusal(house, recipe="other").message
    house.now.forward(27 * 86_400)
    assert handlers.plan_run(house.ports, house.wanted(recipe="other")).budget_left == pytest.approx(0.5)
    # Free compute is never refused, and without an answer of the registry nothing starts.
    house.costs = {"reports": 5.0}
    house.priced(0.0)
    assert house.create(recipe="other").state is RunState.QUEUED
    house.costs = SILENT
    with pytest.raises(Unavailable):
        house.create(dataset_digest="d2")
    house.now.forward(1)
    house.start("d2", minutes=1)
    waiting = house.runs.page()[0]
    assert (waiting.state, waiting.reason) == (RunState.QUEUED, "UNAVAILABLE")
    house.costs = {}
    house.now.forward(3600)
    house.supervisor.tick()
    assert house.runs.get(waiting.run_id).plan is not None


def test_calls_at_the_same_time_do_not_pass_the_budget_together(house: House) -> None:
    house.change_specialist(monthly_budget=1.0)
    house.priced(0.6)

    def create(recipe: str) -> str:
        try:
            return house.create(recipe=recipe).run_id
        except FailedPrecondition as error:
            return error.reason

    with ThreadPoolExecutor(8) as pool:
        results = set(pool.map(create, ["tiny", "other"] * 4))
    assert results == {house.only_run().run_id, "OVER_BUDGET"}


def begin(house: House, *, forecast: float, budget: float = 1.0, **changes: str) -> str:
    house.change_specialist(monthly_budget=budget)
    house.priced(forecast)
    run = house.create(**changes)
    house.supervisor.tick()
    house.beat(run.run_id, run.epoch + 1)
    return run.run_id


def work(house: House, seconds: float, *, every: int = LOOK_SECONDS) -> Run:
    """Let the worker report and the watch look again and again, until the worker is asked to end or the time is over."""
    run = house.runs.page()[-1]
    for step in range(round(seconds / every)):
        house.now.forward(every)
        assert not house.step(run.run_id, run.epoch, step + 1, total_steps=10_000)
        house.budget_watch.tick()
        if house.runs.get(run.run_id).stopping:
            break
    house.supervisor.tick()
    return house.runs.get(run.run_id)


def stopped(house: House, code: int = RETRIABLE_EXIT) -> Run:
    run = house.only_run()
    house.end(run.run_id, run.epoch, code)
    return house.only_run()


def used(house: House) -> float:
    return price_month(house.runs.page()[-1], first_of_month(house.now()))


@pytest.mark.parametrize(("forecast", "code"), [(0.2, RETRIABLE_EXIT), (0.5, -9), (0.99, 0)])
def test_a_run_that_takes_longer_than_its_forecast_is_stopped_before_its_budget_is_passed(
    house: House, forecast: float, code: int
) -> None:
    run_id = begin(house, forecast=forecast)
    assert work(house, (forecast - 0.03) / PER_SECOND).stopping is None
    asked = work(house, 3600, every=5)
    assert (asked.state, asked.reason, house.launcher.stopped) == (RunState.RUNNING, "OVER_BUDGET", [(run_id, 1)])
    cost = used(house)
    assert forecast - 5 * PER_SECOND <= cost <= 1.0
    if forecast < 0.9:
        assert 1.0 - cost >= house.launcher.ends_within.total_seconds() * PER_SECOND
    # It saves and reports meanwhile, which is not counted.
    for second in range(3):
        house.now.forward(10)
        assert not house.step(run_id, 1, 500 + second, total_steps=10_000)
        house.budget_watch.tick()
        house.supervisor.tick()
    assert (house.only_run().best_step, house.launcher.stopped) == (502, [(run_id, 1)])
    assert house.create().state is RunState.RUNNING
    ended = stopped(house, code)
    assert (ended.state, ended.reason, used(house)) == (RunState.FAILED, "OVER_BUDGET", cost)
    assert f"stopped at {cost:.2f} EUR, forecast at {forecast:.2f} EUR" in ended.message
    house.supervisor.tick()
    assert (len(house.launcher.started), house.runs.workers(), house.topics()) == (1, [], ["run.failed.v1"])


@pytest.mark.parametrize("waiting", [None, Failure("WAITS_FOR_NODE", "No node has room.")])
def test_a_stopped_worker_that_is_silent_or_has_no_place_is_not_replaced(house: House, waiting: Failure | None) -> None:
    begin(house, forecast=0.2)
    work(house, 3600)
    house.launcher.waiting = waiting
    house.now.forward(31)
    house.supervisor.tick()
    assert (house.only_run().state, house.only_run().reason) == (RunState.FAILED, "OVER_BUDGET")


def test_a_worker_that_saves_its_result_is_not_stopped_and_a_late_result_is_kept(house: House) -> None:
    run_id = begin(house, forecast=0.2)
    for phase in ("training", "saving", "verifying"):
        house.step(run_id, 1, 8, phase=phase)
        house.now.forward(600)
        house.beat(run_id, 1)
        house.budget_watch.tick()
        assert house.only_run().stopping is None
    house.step(run_id, 1, 2)
    house.budget_watch.tick()
    assert house.only_run().stopping is not None
    assert not house.trained(run_id, 1)
    assert (house.only_run().state, house.topics()) == (RunState.SUCCEEDED, ["adapter.trained.v1"])


def test_a_stage_that_ends_after_its_run_was_stopped_is_not_followed_by_the_next(house: House) -> None:
    run_id = begin(house, forecast=0.2, recipe="chain", preference_dataset_digest="p1")
    house.change_specialist(monthly_budget=0.005)
    house.budget_watch.tick()
    house.trained(run_id, 1)
    ended = house.only_run()
    assert (ended.state, ended.reason, ended.stage) == (RunState.FAILED, "OVER_BUDGET", 1)
    assert house.topics() == ["adapter.trained.v1", "run.failed.v1"]


def test_what_else_the_specialist_uses_and_the_forecast_of_another_run_lower_the_limit(house: House) -> None:
    begin(house, forecast=0.4)
    house.now.forward(1)
    assert house.create(recipe="other").state is RunState.QUEUED
    work(house, 100)
    house.costs = {"reports": 0.2, "others": 90.0}
    assert work(house, 3600).reason == "OVER_BUDGET"
    assert used(house) == pytest.approx(0.4, abs=LOOK_SECONDS * PER_SECOND)


def test_a_lowered_budget_stops_a_run_and_none_lets_it_go_on_and_a_run_without_a_worker_is_left(house: House) -> None:
    begin(house, forecast=0.5)
    house.change_specialist(monthly_budget=0.0)
    assert work(house, 1000).stopping is None and used(house) > 1.0
    # Time in which the service was down and no worker reported is not counted.
    house.now.forward(7200)
    house.change_specialist(monthly_budget=1.5 * used(house))
    house.budget_watch.tick()
    assert house.only_run().stopping is None
    waiting = replace(house.only_run(), state=RunState.QUEUED)
    with house.runs.unit() as unit:
        unit.save(waiting)
    house.change_specialist(monthly_budget=1.0)
    house.budget_watch.tick()
    assert house.only_run() == waiting
    with house.runs.unit() as unit:
        unit.save(replace(waiting, state=RunState.RUNNING))
    house.budget_watch.tick()
    assert house.only_run().reason == "OVER_BUDGET"


def test_without_an_answer_of_the_registry_its_last_answer_of_the_month_counts(house: House) -> None:
    house.costs = {"reports": 0.3}
    begin(house, forecast=0.2)
    house.budget_watch.tick()
    house.costs = SILENT
    assert work(house, 3600).reason == "OVER_BUDGET" and 0.5 < used(house) <= 0.7
    stopped(house)
    house.now.forward(timedelta(days=31).total_seconds())
    house.costs = {}
    begin(house, forecast=0.2)
    house.costs = SILENT
    work(house, 3600)
    assert 0.8 < used(house) <= 1.0


def test_a_stopped_run_resumes_with_its_whole_forecast_in_a_raised_budget_or_the_next_months(house: House) -> None:
    begin(house, forecast=0.5)
    work(house, 3600)
    stopped(house)
    first = used(house)
    begin(house, forecast=0.5, budget=first + 0.51)
    assert (house.only_run().epoch, used(house)) == (2, first)
    assert work(house, 0.48 / PER_SECOND).stopping is None
    work(house, 3600, every=5)
    assert first + 0.47 < used(house) <= first + 0.51
    stopped(house)
    total = used(house)
    house.now.forward(timedelta(days=31).total_seconds())
    assert used(house) == 0.0
    begin(house, forecast=0.5)
    work(house, 3600)
    assert stopped(house).reason == "OVER_BUDGET" and used(house) == pytest.approx(first)
    assert house.only_run().worked_seconds * PER_SECOND == pytest.approx(total + first)


def test_a_run_that_works_on_in_a_new_month_counts_there_from_its_beginning(house: House) -> None:
    house.now.forward(26 * 86_400 + 15 * 3600 - 400)
    begin(house, forecast=0.5)
    assert work(house, 400 + 300).stopping is None
    assert used(house) == pytest.approx(300 * PER_SECOND, abs=2 * LOOK_SECONDS * PER_SECOND)
    work(house, 3600)
    assert 0.9 < used(house) <= 1.0
