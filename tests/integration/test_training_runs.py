"""The life of a run over the database: requests, reports, leases, epochs, workers, and the queue."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from services.training import handlers
from services.training.adapters.sql import WatchCursor
from services.training.domain import DATASET_ERASED, RETRIABLE_EXIT, Failure, RunState
from services.training.queue import Limits
from services.training.transitions import MAX_ATTEMPTS
from tailor.api.events.v1 import models_pb2
from tailor.api.training.v1 import training_pb2 as pb
from tailor.errors import (
    Aborted,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    TailorError,
)
from tests.integration.training_service import House, at_once, training_service
from tests.unit.training.fakes import PLAN

pytestmark = pytest.mark.integration


@pytest.fixture
def house(database_url: str, tmp_path: Path) -> Iterator[House]:
    with training_service(database_url, tmp_path) as house:
        yield house


def test_redelivered_and_concurrent_events_and_calls_make_one_run_of_a_recipe(house: House) -> None:
    at_once(*[house.publish] * 8)
    run_id = house.only_run().run_id
    assert house.create().run_id == house.create(priority=7).run_id == run_id
    at_once(*[house.supervisor.tick] * 4)
    assert [(job.run.epoch, job.base_digest) for job in house.launcher.started] == [(1, house.only_run().base_digest)]
    house.publish(recipes={"sft": "other"})
    assert len(house.runs.page()) == 2
    ids = {house.create(recipe="polish", **changes).run_id for changes in ({}, {"preference_dataset_digest": "p1"})}
    assert len(ids) == 2
    assert house.create(recipe="tiny,dpo", preference_dataset_digest="p1").run_id in ids


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        ("dpo", "WRONG_DATASET_KIND"),
        ("polish", "INVALID_RECIPE"),
        ("broken", "INVALID_RECIPE"),
        ("magic", "UNKNOWN_RECIPE"),
    ],
)
def test_a_pipeline_that_cannot_work_makes_one_failed_run_with_the_reason(
    house: House, recipe: str, reason: str
) -> None:
    for _ in range(2):
        house.publish(recipes={"sft": recipe})
    run = house.only_run()
    assert (run.state, run.reason) == (RunState.FAILED, reason)
    assert ("adapter" in run.message) is (recipe == "broken")
    assert [message.reason for message in house.published("run.failed.v1")] == [reason]


def test_impossible_requests_are_rejected_with_their_reason_and_store_nothing(house: House) -> None:
    parent = house.store_adapter()
    other = house.store_dataset("d3", "memos")
    wrong_parents = [
        house.store_adapter(**wrong)
        for wrong in ({"kind": "reward"}, {"weights": "full"}, {"specialist": "x"}, {"base": "other"})
    ]
    requests: dict[str, list[dict[str, object]]] = {
        "UNKNOWN_DATASET": [
            {"dataset_digest": "unknown"},
            {"recipe": "polish", "preference_dataset_digest": "unknown"},
        ],
        "UNKNOWN_BASE": [{"base": "unknown"}],
        "UNKNOWN_ADAPTER": [{"parent_digest": "unknown"}],
        "MISSING_FIELD": [{"specialist": ""}],
        "INVALID_PRIORITY": [{"priority": 101}],
        "WRONG_SPECIALIST": [
            {"dataset_digest": other},
            {"specialist": "memos"},
            {"recipe": "chain", "preference_dataset_digest": house.store_dataset("p3", "memos")},
        ],
        "WRONG_DATASET_KIND": [
            {"recipe": "dpo"},
            {"dataset_digest": "p1"},
            {"recipe": "chain", "dataset_digest": "p1"},
            {"preference_dataset_digest": "p1"},
            {"recipe": "chain", "preference_dataset_digest": "d2"},
            {"recipe": "dpo", "dataset_digest": "p1", "preference_dataset_digest": "p2"},
        ],
        "INVALID_RECIPE": [
            {"recipe": "heavy", "preference_dataset_digest": "p1"},
            {"recipe": "full", "parent_digest": parent},
            {"recipe": "narrow", "dataset_digest": "p1", "parent_digest": parent},
            {"recipe": "narrowing", "preference_dataset_digest": "p1"},
            {"recipe": ",".join(["tiny"] * 9)},
            {"recipe": "tiny,polish"},
        ],
        "WRONG_PARENT": [{"parent_digest": digest} for digest in wrong_parents],
        "NO_REWARD_ADAPTER": [
            {"dataset_digest": "p1", "recipe": "rloo"},
            {"dataset_digest": "p1", "recipe": "held_out_reward,rloo"},
            {"recipe": "backwards", "preference_dataset_digest": "p1"},
        ],
    }
    for reason, changes in ((reason, changes) for reason, listed in requests.items() for changes in listed):
        for call in (handlers.create_run, handlers.plan_run):
            with pytest.raises(TailorError) as refused:
                call(house.ports, house.wanted(**changes))
            assert refused.value.reason == reason, changes
    with pytest.raises(NotFound, match="tailor model add"):
        house.create(base="unknown")
    assert house.runs.page() == []


def test_every_report_is_stored_and_published_at_most_every_two_seconds(house: House) -> None:
    run_id = house.start()
    for step in range(1, 9):
        house.now.forward(0.5 * (step < 8))
        assert house.step(run_id, 1, step) is False
    assert [message.step for message in house.published("run.progressed.v1")] == [1, 5, 8]
    assert [progress.step for _, progress in house.runs.reports(run_id, 0)] == list(range(1, 9))
    run = house.only_run()
    assert run.progress is not None and run.progress.step == 8
    assert run.first_loss == pytest.approx(2.9)
    assert (run.current.dataset, run.lease_expires) == (house.refs["d1"], house.now() + timedelta(seconds=30))


def test_an_old_epochs_reports_are_rejected_and_change_nothing(house: House) -> None:
    run_id = house.start()
    house.now.forward(1000)
    house.supervisor.tick()
    assert house.only_run().epoch == 2
    reports: list[Callable[[], bool]] = [
        lambda: house.beat(run_id, 1),
        lambda: house.step(run_id, 1, 1),
        lambda: house.step(run_id, 1, 1, loss=math.nan),
        lambda: house.trained(run_id, 1),
        lambda: house.report(run_id, 1, failed=models_pb2.RunFailed(reason="X")),
        lambda: house.report(run_id, 1, log=pb.LogLines(lines=[pb.LogLine(message="late")])),
    ]
    for report in reports:
        with pytest.raises(Aborted) as refused:
            report()
        assert refused.value.reason == "STALE_EPOCH"
    with pytest.raises(InvalidArgument):
        house.report(run_id, 2)
    with pytest.raises(NotFound):
        house.beat("run_unknown", 1)
    assert house.topics() == []


def test_a_repeated_end_is_published_once_with_its_figures(house: House) -> None:
    run_id = house.start()
    house.step(run_id, 1, 1)
    for _ in range(2):
        assert house.trained(run_id, 1, base_digest="b1", first_loss=3, metrics={"held_out_loss": 1.5}) is False
    (event,) = house.published("adapter.trained.v1")
    assert (event.digest, event.specialist, event.run_id, house.name(event.dataset_digest)) == (
        "a1",
        "reports",
        run_id,
        "d1",
    )
    assert (event.kind, event.metrics["held_out_loss"]) == (models_pb2.ADAPTER_KIND_POLICY, 1.5)
    assert house.only_run().adapter_digest == "a1"
    house.supervisor.tick()
    # It still deletes its checkpoints.
    assert house.launcher.stopped == []
    house.now.forward(31)
    house.supervisor.tick()
    assert house.launcher.stopped == [(run_id, 1)]
    with pytest.raises(FailedPrecondition):
        handlers.cancel_run(house.runs, run_id, house.now())
    other = house.create(recipe="other").run_id
    house.supervisor.tick()
    for _ in range(2):
        house.report(other, 1, failed=models_pb2.RunFailed(reason="NO_ROWS", message="No row is short enough."))
    house.supervisor.tick()
    assert house.topics() == ["adapter.trained.v1", "run.failed.v1"]
    assert len(house.launcher.started) == 2


def test_log_lines_are_truncated_renew_the_lease_and_the_newest_are_kept(house: House) -> None:
    run_id = house.start()
    house.now.forward(179)
    for number in range(21):
        lines = [pb.LogLine(level="odd", message=f"{number}-{line}" + "x" * 2000 * (line == 99)) for line in range(100)]
        assert house.report(run_id, 1, log=pb.LogLines(lines=lines)) is False
    house.now.forward(2)
    house.supervisor.tick()
    assert house.only_run().epoch == 1
    kept = house.runs.news(run_id, WatchCursor()).lines
    assert (len(kept), kept[0].message, len(kept[-1].message)) == (2000, "1-0", 1000)
    assert (kept[0].level, kept[0].epoch) == ("info", 1)
    with pytest.raises(InvalidArgument):
        house.report(run_id, 1, log=pb.LogLines(lines=[pb.LogLine()] * 101))


def test_a_loss_that_is_not_finite_fails_the_run_and_stops_its_worker(house: House) -> None:
    run_id = house.start()
    assert house.step(run_id, 1, 3, loss=math.inf) is True
    run = house.only_run()
    assert (run.state, run.reason, "learning_rate" in run.message) == (RunState.FAILED, "DIVERGED", True)
    house.supervisor.tick()
    assert house.launcher.stopped == [(run_id, 1)]


@pytest.mark.parametrize("grace", [40, 150])
def test_a_cancelled_runs_worker_is_stopped_once_even_after_a_restart_and_waited_for(
    house: House, tmp_path: Path, grace: int
) -> None:
    run_id = house.start()
    assert handlers.cancel_run(house.runs, run_id, house.now()).state is RunState.CANCELLED
    assert house.beat(run_id, 1) and house.step(run_id, 1, 1) and house.trained(run_id, 1)
    assert [message.reason for message in house.published("run.failed.v1")] == ["CANCELLED"]
    restarted = House(house.engine, tmp_path)
    restarted.launcher.grace = timedelta(seconds=grace)
    restarted.supervisor.adopt()
    for _ in range(2):
        restarted.supervisor.tick()
    assert restarted.launcher.stopped == [(run_id, 1)]
    restarted.now.forward(grace - 1)
    restarted.supervisor.tick()
    assert len(house.runs.workers()) == 1
    if grace == 40:
        restarted.now.forward(2)
    else:
        restarted.launcher.exits[run_id, 1] = 75
    restarted.supervisor.tick()
    assert house.runs.workers() == []


def test_a_cancelled_or_failed_run_resumes_where_it_stopped(house: House) -> None:
    run_id = house.start()
    house.step(run_id, 1, 4)
    handlers.cancel_run(house.runs, run_id, house.now())
    house.publish()
    assert house.only_run().state is RunState.CANCELLED
    again = house.create()
    assert (again.run_id, again.state, again.reason, again.end_time) == (run_id, RunState.QUEUED, "", None)
    house.supervisor.tick()
    assert (house.only_run().state, house.only_run().epoch) == (RunState.RUNNING, 2)
    assert (run_id, 1) in house.launcher.stopped
    house.now.forward(1)
    with pytest.raises(Aborted):
        house.beat(run_id, 1)
    house.report(run_id, 2, failed=models_pb2.RunFailed(reason="NO_ROWS"))
    # It must still fit.
    house.forecast = replace(PLAN, fits=False, refusal="It needs 9 GB.")
    house.now.forward(4000)
    with pytest.raises(FailedPrecondition, match="9 GB"):
        house.create()
    house.forecast = PLAN
    assert house.create().state is RunState.QUEUED
    house.supervisor.tick()
    house.trained(run_id, 3)
    assert house.create().state is RunState.SUCCEEDED
    assert house.topics() == ["run.failed.v1", "run.failed.v1", "adapter.trained.v1"]
    with house.runs.unit() as unit:
        unit.save(replace(house.only_run(), state=RunState.CANCELLED, reason=DATASET_ERASED))
    assert house.create().state is RunState.CANCELLED


def test_a_deleted_specialists_runs_are_cancelled_and_none_is_made_until_it_is_created_again(house: House) -> None:
    house.publish()
    run = house.only_run()
    handlers.cancel_runs_of(house.runs, "another", house.now(), house.now())
    handlers.cancel_runs_of(house.runs, "reports", run.create_time - timedelta(seconds=1), house.now())
    assert house.only_run().state is RunState.QUEUED
    for _ in range(2):
        house.change_specialist(deleted=True)
    assert house.only_run().state is RunState.CANCELLED
    assert [message.reason for message in house.published("run.failed.v1")] == ["CANCELLED"]
    for recipe in ("tiny", "other"):
        with pytest.raises(FailedPrecondition) as refused:
            house.create(recipe=recipe)
        assert refused.value.reason == "SPECIALIST_DELETED"
    house.change_specialist(deleted=False)
    assert (house.create().run_id, house.only_run().state) == (run.run_id, RunState.QUEUED)


def test_a_silent_or_dead_worker_is_replaced_under_the_next_epoch_and_a_live_one_outlasts_a_restart(
    house: House,
) -> None:
    run_id = house.start()
    house.now.forward(1000)
    house.supervisor.adopt()
    house.supervisor.tick()
    house.beat(run_id, 1)
    house.now.forward(29)
    house.supervisor.tick()
    assert house.only_run().epoch == 1
    for _ in range(2):
        house.now.forward(2)
        house.supervisor.tick()
    assert (house.only_run().epoch, house.launcher.stopped) == (2, [(run_id, 1)])
    house.end(run_id, 2, -9)
    house.now.forward(3)
    house.supervisor.tick()
    assert house.only_run().epoch == 3


def test_only_workers_without_progress_fail_a_run(house: House) -> None:
    run_id = house.start()
    for epoch in range(1, MAX_ATTEMPTS + 2):
        house.end(run_id, epoch, RETRIABLE_EXIT)
    assert (house.only_run().state, house.only_run().failures) == (RunState.RUNNING, 0)
    first = house.only_run().epoch
    for epoch in range(first, first + 2 * MAX_ATTEMPTS):
        if epoch < first + MAX_ATTEMPTS + 1:
            house.step(run_id, epoch, epoch, total_steps=99)
        house.end(run_id, epoch, 1)
        house.now.forward(100)
        house.supervisor.tick()
    assert (house.only_run().state, house.only_run().reason) == (RunState.FAILED, "WORKER_DIED")
    assert house.only_run().epoch == first + 2 * MAX_ATTEMPTS - 1
    assert house.topics() == ["run.failed.v1"]


def test_a_run_waits_with_the_reason_for_its_base_its_platform_and_its_place(house: House) -> None:
    (key,) = house.store.list_keys("models", "bases/tiny/")
    base = house.store.objects.pop(("models", key))
    house.launcher.broken = True
    run_id = house.start()
    assert (house.only_run().state, house.only_run().reason) == (RunState.QUEUED, "WAITS_FOR_BASE")
    house.store.objects["models", key] = base
    for _ in range(MAX_ATTEMPTS + 1):
        house.now.forward(6)
        house.supervisor.tick()
        run = house.only_run()
        assert (run.state, run.reason, run.failures) == (RunState.QUEUED, "KUBERNETES_UNAVAILABLE", 0)
    house.launcher.broken = False
    house.launcher.waiting = Failure("WAITS_FOR_NODE", "0/3 nodes are available.")
    house.now.forward(5)
    house.supervisor.tick()
    epoch = house.only_run().epoch
    for _ in range(2):
        house.now.forward(1000)
        house.supervisor.tick()
        run = house.only_run()
        assert (run.state, run.epoch) == (RunState.RUNNING, epoch)
        assert (run.reason, run.message) == ("WAITS_FOR_NODE", "0/3 nodes are available.")
    house.launcher.waiting = None
    house.beat(run_id, epoch)
    assert house.only_run().reason == ""
    house.launcher.refused = Failure("IMAGE_NOT_PULLED", "manifest unknown")
    house.supervisor.tick()
    assert (house.only_run().state, house.only_run().reason) == (RunState.FAILED, "IMAGE_NOT_PULLED")
    house.launcher.refused = None
    house.supervisor.tick()
    assert house.launcher.stopped[-1] == (run_id, epoch)


def test_limits_apply_in_total_and_per_specialist_and_runs_that_wait_take_no_place(
    house: House, tmp_path: Path
) -> None:
    house = House(house.engine, tmp_path, Limits(2, 1))
    run_id = house.create(recipe="polish").run_id
    for name, specialist, priority in (
        ("d2", "reports", 0),
        ("d4", "memos", 0),
        ("d5", "letters", 5),
        ("d6", "notes", 0),
    ):
        house.now.forward(1)
        digest = house.digest("d2") if name == "d2" else house.store_dataset(name, specialist)
        house.create(specialist=specialist, dataset_digest=digest, priority=priority)
    house.supervisor.tick()
    assert house.started() == ["letters", "reports"]
    reasons = {house.name(run.key.dataset_digest): (run.reason, run.message) for run in house.runs.page()}
    assert reasons["d2"] == ("WAITS_FOR_SPECIALIST", "Waits for another run of 'reports' to end.")
    assert reasons["d4"] == reasons["d6"] == ("WAITS_FOR_PLACE", "Waits for one of 2 places.")
    house.finish(run_id, "a1")
    assert house.runs.get(run_id).reason == "WAITS_FOR_RANKINGS"
    assert house.started() == ["letters", "reports", "reports"]
