"""A promotion over two inference replicas: facts go both ways between them and the registry, as over the broker."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine

from services.inference.adapters.events import ReportPublisher
from services.inference.consumers import ServingConsumer
from services.registry import handlers, promotions
from services.registry.adapters.queries import Queries
from services.registry.adapters.sql import begin
from services.registry.adapters.tables import outbox as outbox_rows
from services.registry.bootstrap import MIGRATIONS, signer
from services.registry.consumers import Consumers
from services.registry.domain import Specialist
from services.registry.gate import Gate, Threshold
from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.events.envelope import Event
from tailor.events.memory import MemoryProducer
from tailor.events.outbox import Outbox
from tailor.rpc.identity import Identity
from tests.conftest import migrated
from tests.unit.inference.fakes import make_world

pytestmark = pytest.mark.integration

NAME = "reports"


class NoEvaluator:
    """Is asked nothing here."""

    def evaluate(self, adapter_digest: str, request_id: str) -> None:
        raise AssertionError


class Replica:
    """An inference replica over a fake engine; what it states waits in its own producer."""

    def __init__(self, name: str, base: str = "tiny") -> None:
        self.name, self.base = name, base
        self.producer = MemoryProducer("inference")
        self.world = make_world()
        self.models = replace(self.world.models, base=base)
        publish = ReportPublisher(self.producer, name).publish
        self.serving = ServingConsumer(self.models, publish, lambda _, work: work())

    def answers_with(self) -> str:
        found = self.models.table.get(NAME)
        return found.adapter_digest if found else ""


class House:
    """The registry and its replicas."""

    def __init__(self, engine: Engine) -> None:
        self.producer = MemoryProducer("registry")
        self.outbox = Outbox(engine, outbox_rows, self.producer)
        self.begin = begin(engine, self.outbox)
        self.queries = Queries(engine)
        self.consumers = Consumers(
            self.begin, NoEvaluator(), signer(Identity("registry", Ed25519PrivateKey.generate()))
        )
        specialist = Specialist(NAME, "tiny", "lora", gate=Gate((Threshold("rougeL"),), 1))
        handlers.create_specialist(self.begin, specialist)

    def train(self, digest: str) -> None:
        """An adapter that passes the gate and is promoted by it."""
        with self.begin() as tx:
            generation = tx.serving(NAME).generation
        scores = models_pb2.Scores(values={"rougeL": 0.2, "parity": 0.01})
        trained = models_pb2.AdapterTrained(digest=digest, kind=1, specialist=NAME, base="tiny")
        trained.manifest.uri = f"s3://models/adapters/{digest}/manifest.json"
        evaluated = models_pb2.AdapterEvaluated(
            evaluation_id=f"e-{digest}",
            adapter_digest=digest,
            specialist=NAME,
            base=scores,
            candidate=scores,
            rows=4,
            incumbent_generation=generation,
        )
        self.tell("adapter.trained.v1", trained)
        self.tell("adapter.evaluated.v1", evaluated)

    def tell(self, topic: str, message: models_pb2.AdapterTrained | models_pb2.AdapterEvaluated) -> None:
        self.consumers.topics()[topic](Event(topic, NAME, message.SerializeToString(), {}))

    def decided(self) -> list[Event]:
        while self.outbox.relay():
            pass
        return self.producer.events("specialist.serving.v1")

    def reaches(self, *replicas: Replica) -> None:
        """The replicas read all that was decided."""
        for replica in replicas:
            for event in self.decided():
                replica.serving.apply(event)

    def hears(self, *replicas: Replica) -> None:
        """The registry reads all that the replicas stated, again and again as it may."""
        for replica in replicas:
            for topic in ("adapter.served.v1", "replica.seen.v1"):
                for event in replica.producer.events(topic):
                    self.consumers.topics()[topic](event)

    def serving(self) -> registry_pb2.Serving:
        found = self.queries.serving(NAME)
        assert found is not None
        return found

    def rollout(self) -> dict[str, str]:
        return {one.replica: "serves" if one.serving else one.reason for one in self.serving().rollout}


def speak(replica: Replica, *, leaving: bool = False, seconds_ago: float = 0) -> None:
    """What a ready replica states of itself every few seconds."""
    message = models_pb2.ReplicaSeen(replica=replica.name, base=replica.base, leaving=leaving)
    message.create_time.FromDatetime(datetime.now(UTC) - timedelta(seconds=seconds_ago))
    number = len(replica.producer.sent)
    replica.producer.send("replica.seen.v1", replica.name, message, f"evt_{replica.name}_{number}")


@pytest.fixture
def house(database_url: str) -> Iterator[House]:
    with migrated(database_url, MIGRATIONS) as engine:
        yield House(engine)


def test_a_promotion_and_a_rollback_are_finished_once_both_replicas_serve_them(house: House) -> None:
    first, second = Replica("inference-0"), Replica("inference-1")
    for replica in (first, second):
        speak(replica)
    for digest in ("a", "b"):
        house.train(digest)
        house.reaches(first)
        house.hears(first, second)
        assert house.rollout() == {"inference-0": "serves", "inference-1": ""}
        assert not house.serving().finished
        house.reaches(second)
        house.hears(second)
        assert house.serving().finished
        assert first.answers_with() == second.answers_with() == digest
    promotions.rollback(house.begin, NAME, 2)
    assert not house.serving().finished
    house.reaches(first, second)
    house.hears(first, second)
    assert house.serving().finished
    assert first.answers_with() == second.answers_with() == "a"
    assert first.world.engine.unloaded == second.world.engine.unloaded == []


def test_a_replica_that_refuses_leaves_it_unfinished_and_says_why(house: House) -> None:
    first, second = Replica("inference-0"), Replica("inference-1")
    for replica in (first, second):
        speak(replica)
    second.world.library.bad.add("b")
    for digest in ("a", "b"):
        house.train(digest)
        house.reaches(first, second)
    house.hears(first, second)
    assert house.rollout() == {"inference-0": "serves", "inference-1": "WRONG_BASE"}
    assert not house.serving().finished
    assert (first.answers_with(), second.answers_with()) == ("b", "a")
    entry = house.queries.catalogue_adapter(models_pb2.AdapterTrained(digest="b", specialist=NAME))
    assert (entry.serving_replicas, entry.ready_replicas) == (1, 2)


def test_replicas_that_were_killed_that_leave_or_that_serve_another_base_are_not_waited_for(house: House) -> None:
    first, second, other = Replica("inference-0"), Replica("inference-1"), Replica("inference-2", "another")
    house.train("a")
    for replica in (first, second, other):
        speak(replica)
    house.reaches(first)
    house.hears(first, second, other)
    assert house.rollout() == {"inference-0": "serves", "inference-1": ""}
    speak(second, leaving=True)
    house.hears(second)
    assert house.serving().finished
    # What it said before it left changes nothing, however late it arrives.
    speak(second, seconds_ago=5)
    house.hears(second)
    assert house.rollout() == {"inference-0": "serves"}
    killed = Replica("inference-3")
    speak(killed, seconds_ago=31)
    house.hears(killed)
    assert house.serving().finished


def test_a_replica_that_comes_later_counts_with_all_that_serves_loaded(house: House) -> None:
    first = Replica("inference-0")
    speak(first)
    house.train("a")
    house.reaches(first)
    house.hears(first)
    late = Replica("inference-1")
    house.reaches(late)
    speak(late)
    house.hears(late)
    assert house.rollout() == {"inference-0": "serves", "inference-1": "serves"}
    assert house.serving().finished


def test_nothing_is_finished_while_no_replica_is_ready(house: House) -> None:
    house.train("a")
    assert house.rollout() == {}
    assert not house.serving().finished
