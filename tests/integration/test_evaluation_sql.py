"""Evaluation over PostgreSQL."""

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import Engine

from services.evaluation import handlers
from services.evaluation.adapters import tables
from services.evaluation.adapters.metrics import measure
from services.evaluation.adapters.sql import SqlRepository
from services.evaluation.bootstrap import MIGRATIONS
from services.evaluation.consumers import Consumers
from services.evaluation.domain import Result, Score, State
from services.evaluation.rpc import EvaluationServicer
from tailor.api.common.v1 import common_pb2
from tailor.api.evaluation.v1 import evaluation_pb2
from tailor.api.events.v1 import models_pb2
from tailor.errors import AlreadyExists, NotFound
from tailor.events.envelope import Event
from tailor.events.memory import MemoryProducer
from tailor.events.outbox import Outbox
from tailor.rpc.auth import Caller, set_caller
from tailor.sql import connect, migrate
from tests.unit.evaluation.fakes import MANIFEST, adapter, make_app

pytestmark = pytest.mark.integration

RUNNING = threading.Event()


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = connect(database_url)
    migrate(made, MIGRATIONS)
    yield made
    made.dispose()


class World:
    def __init__(self, engine: Engine) -> None:
        self.producer = MemoryProducer("evaluation")
        self.outbox = Outbox(engine, tables.outbox, self.producer)
        self.repository = SqlRepository(engine, self.outbox)
        self.app = make_app(repository=self.repository, metrics=measure, terms={})
        self.consumers = Consumers(self.app)
        self.servicer = EvaluationServicer(self.app)

    def tell(self, topic: str, message: models_pb2.AdapterTrained | models_pb2.DatasetBuilt) -> None:
        self.consumers.topics()[topic](Event(topic, "key", message.SerializeToString()))

    def train(self, digest: str, kind: int = models_pb2.ADAPTER_KIND_POLICY) -> None:
        reference = common_pb2.ObjectRef(
            uri=f"s3://models/adapters/{digest}/manifest.json", sha256=digest, size_bytes=9
        )
        message = models_pb2.AdapterTrained(
            digest=digest, kind=kind, specialist="reports", dataset_digest="data1", base="b", manifest=reference
        )
        self.tell("adapter.trained.v1", message)

    def prepare(self) -> None:
        manifest = common_pb2.ObjectRef(uri=MANIFEST.uri, sha256=MANIFEST.sha256, size_bytes=MANIFEST.size_bytes)
        self.tell("dataset.built.v1", models_pb2.DatasetBuilt(digest="data1", manifest=manifest))
        changed = models_pb2.SpecialistChanged(name="reports", revision=1, house_terms=["line of sight"])
        self.consumers.specialist(Event("specialist.changed.v1", "reports", changed.SerializeToString()))

    def stated(self) -> list[models_pb2.AdapterEvaluated]:
        while self.outbox.relay():
            pass
        return list(self.producer.messages("adapter.evaluated.v1"))


def test_an_adapter_is_measured_stored_and_stated_once(engine: Engine) -> None:
    world = World(engine)
    world.prepare()
    for _ in range(2):
        world.train("ad1")
    world.train("rw1", models_pb2.ADAPTER_KIND_REWARD)
    assert handlers.work_once(world.app, RUNNING)
    assert not handlers.work_once(world.app, RUNNING)
    (message,) = world.stated()
    assert (message.adapter_digest, message.rows, message.incumbent_generation) == ("ad1", 4, 0)
    assert message.candidate.values["rougeL"] == 1.0 > message.base.values["rougeL"]
    assert set(message.base.values) == {"rouge1", "rouge2", "rougeL", "bleu", "house_terms_f1", "perplexity"}
    assert not message.HasField("incumbent")
    set_caller(Caller("service", "console"))
    found = world.servicer.GetEvaluation(evaluation_pb2.GetEvaluationRequest(adapter_digest="ad1"), None)
    assert found.state == evaluation_pb2.EVALUATION_STATE_SUCCEEDED and found.rows_done == found.rows_total == 8
    assert found.result == message and found.plot_png.startswith(b"\x89PNG") and "| rougeL |" in found.report_markdown


def test_it_is_measured_again_on_command_beside_what_serves(engine: Engine) -> None:
    world = World(engine)
    world.prepare()
    for digest in ("ad0", "ad1"):
        world.train(digest)
        assert handlers.work_once(world.app, RUNNING)
    serving = models_pb2.SpecialistServing(
        specialist="reports", generation=4, adapter_digest="ad0", manifest={"uri": "s3://models/x"}
    )
    world.consumers.serving(Event("specialist.serving.v1", "reports", serving.SerializeToString()))
    set_caller(Caller("service", "registry"))
    request = evaluation_pb2.EvaluateRequest(adapter_digest="ad1", request_id="again")
    evaluation_id = world.servicer.Evaluate(request, None).evaluation_id
    assert world.servicer.Evaluate(request, None).evaluation_id == evaluation_id
    assert handlers.work_once(world.app, RUNNING)
    *_, message = world.stated()
    assert (message.evaluation_id, message.incumbent_digest, message.incumbent_generation) == (evaluation_id, "ad0", 4)
    assert message.incumbent.values["rougeL"] == 1.0
    assert world.app.models.asked.count("adapter:ad0") == 4
    with pytest.raises(AlreadyExists):
        world.servicer.Evaluate(evaluation_pb2.EvaluateRequest(adapter_digest="ad0", request_id="again"), None)


def test_nobody_sees_an_evaluation_of_a_specialist_that_is_not_theirs(engine: Engine) -> None:
    world = World(engine)
    world.prepare()
    world.train("ad1")
    set_caller(Caller("key", "somebody", "ROLE_ENGINEER", frozenset({"others"})))
    with pytest.raises(NotFound):
        world.servicer.GetEvaluation(evaluation_pb2.GetEvaluationRequest(adapter_digest="ad1"), None)
    with pytest.raises(NotFound):
        world.servicer.Evaluate(evaluation_pb2.EvaluateRequest(adapter_digest="ad1"), None)


def test_an_evaluation_is_held_by_one_and_freed_by_a_death(engine: Engine) -> None:
    repository = World(engine).repository
    for number in (1, 2):
        repository.keep_adapter(adapter(f"ad{number}"))
        repository.queue(f"evl_{number}", adapter(f"ad{number}"))
    with repository.next() as first, repository.next() as second, repository.next() as third:
        assert first is not None and second is not None and third is None
        assert (first.evaluation_id, second.evaluation_id, first.attempts) == ("evl_1", "evl_2", 1)
        repository.start("evl_1", 8)
    with repository.next() as again:
        assert again is not None
        assert (again.evaluation_id, again.state, again.attempts) == ("evl_1", State.RUNNING, 2)
    repository.fail("evl_1", "WRONG_BASE")
    assert repository.evaluation("evl_1") == replace(again, state=State.FAILED, reason="WRONG_BASE")
    with repository.next() as other:
        assert other is not None and other.evaluation_id == "evl_2"


def test_results_survive_and_serve_later_evaluations_on_the_same_rows(engine: Engine) -> None:
    repository = World(engine).repository
    result = Result(("said",), (Score(-1.25, 3),))
    repository.keep_result("evl_1", "adapter:ad1", "k", result)
    repository.keep_result("evl_1", "adapter:ad1", "k", Result((), ()))
    assert repository.result("evl_1", "adapter:ad1", "k") == result == repository.result_of_adapter("ad1", "k")
    assert repository.result("evl_1", "base", "k") is None and repository.result_of_adapter("ad1", "other") is None
