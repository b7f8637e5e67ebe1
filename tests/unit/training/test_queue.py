"""Which run is next, and what the others wait for."""

from dataclasses import replace
from pathlib import Path

import pytest

from services.training import handlers, reporting
from services.training.domain import RETRIABLE_EXIT
from services.training.queue import Limits
from services.training.settings import Settings
from services.training.transitions import BACKOFF_SECONDS, JITTER, lose_worker
from tests.unit.training.chains import write_recipes
from tests.unit.training.fakes import ONE, RATES, START, House, PreparingSupervisor, trained, wanted


def queue(house: House, specialist: str, priority: int = 0) -> str:
    house.now.forward(1)
    asked = wanted(specialist=specialist, dataset_digest=f"d1@{specialist}", priority=priority)
    return handlers.create_run(house.ports, asked).run_id


def started(house: House) -> list[str]:
    return [job.run.key.specialist for job in house.launcher.started]


def test_the_highest_priority_goes_first_then_the_oldest() -> None:
    house = House()
    for specialist, priority in (("old", 0), ("young", 0), ("low", -5), ("high", 5)):
        queue(house, specialist, priority)
    for number in range(4):
        house.supervisor.tick()
        run = house.launcher.started[number].run
        reporting.report_trained(house.runs, run.run_id, run.epoch, trained(f"a{number}"), rates=RATES, now=house.now())
    assert started(house) == ["high", "old", "young", "low"]


def test_limits_apply_in_total_and_per_specialist_and_waiting_runs_have_a_reason() -> None:
    house = House(limits=Limits(2, 1))
    first = queue(house, "reports")
    house.now.forward(1)
    again = handlers.create_run(house.ports, wanted(dataset_digest="d2")).run_id
    queue(house, "memos")
    third = queue(house, "letters")
    house.supervisor.tick()
    assert started(house) == ["reports", "memos"]
    assert house.runs.runs[again].reason == "WAITS_FOR_SPECIALIST"
    assert "reports" in house.runs.runs[again].message
    assert (house.runs.runs[third].reason, house.runs.runs[third].message) == (
        "WAITS_FOR_PLACE",
        "Waits for one of 2 places.",
    )
    reporting.report_trained(house.runs, first, 1, trained(), rates=RATES, now=house.now())
    house.supervisor.tick()
    assert started(house) == ["reports", "memos", "reports"]


def test_kueue_lifts_the_limit_over_all_runs() -> None:
    assert Settings().limits() == Limits(1, 1)
    assert Settings(max_runs=4, max_runs_per_specialist=2).limits() == Limits(4, 2)
    kueue = Settings(launcher="kubernetes", kubernetes_queue="gpus", max_runs_per_specialist=2)
    assert kueue.limits() == Limits(None, 2)
    assert Settings(launcher="kubernetes", max_runs=4).limits() == Limits(4, 1)


def test_only_the_limit_per_specialist_applies_with_another_queue() -> None:
    house = House(limits=Limits(None, 1))
    for specialist in ("a", "b", "c"):
        queue(house, specialist)
    handlers.create_run(house.ports, wanted(specialist="a", dataset_digest="d2@a"))
    house.supervisor.tick()
    assert started(house) == ["a", "b", "c"]


def test_a_run_that_waits_for_rankings_takes_no_place(tmp_path: Path) -> None:
    house = House(write_recipes(tmp_path))
    run_id = handlers.create_run(house.ports, wanted(recipe="polish")).run_id
    house.supervisor.tick()
    reporting.report_trained(house.runs, run_id, 1, trained(), rates=RATES, now=house.now())
    house.launcher.exits[run_id, 1] = 0
    queue(house, "memos")
    house.supervisor.tick()
    assert house.runs.runs[run_id].reason == "WAITS_FOR_RANKINGS"
    assert started(house) == ["reports", "memos"]


def test_a_preempted_run_lets_a_higher_priority_go_first() -> None:
    house = House()
    low = queue(house, "low")
    house.supervisor.tick()
    queue(house, "high", 5)
    house.launcher.exits[low, 1] = RETRIABLE_EXIT
    house.supervisor.tick()
    assert started(house) == ["low", "high"]
    assert house.runs.runs[low].reason == "WAITS_FOR_PLACE"


def test_lost_worker_is_replaced_with_a_growing_delay() -> None:
    house = House()
    queue(house, "reports")
    run = house.only_run()
    for wait in BACKOFF_SECONDS[:4]:
        run = lose_worker(run, "WORKER_DIED", START)
        assert run.not_before is not None
        assert wait <= (run.not_before - START).total_seconds() <= wait * (1 + JITTER)
        assert f"{run.not_before:%H:%M:%S} UTC" in run.message


def test_runs_that_failed_together_do_not_retry_together() -> None:
    house = House()
    ids = [queue(house, specialist) for specialist in ("a", "b", "c")]
    fallen = [lose_worker(replace(house.runs.runs[run_id], failures=3), "WORKER_DIED", START) for run_id in ids]
    assert len({run.not_before for run in fallen}) == 3


@pytest.mark.parametrize("restarted", [True, False])
def test_worker_of_a_cancelled_run_is_stopped_even_after_a_restart(restarted: bool) -> None:
    house = House()
    run_id = queue(house, "reports")
    house.supervisor.tick()
    handlers.cancel_run(house.runs, run_id, house.now())
    supervisor = PreparingSupervisor(house.ports, house.launcher, ONE) if restarted else house.supervisor
    supervisor.tick()
    supervisor.tick()
    assert house.launcher.stopped == [(run_id, 1)]
    house.launcher.exits[run_id, 1] = 0
    supervisor.tick()
    assert house.runs.workers() == []
