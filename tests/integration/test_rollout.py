"""A promotion over two inference replicas, with events passed in both directions between them and the registry."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine

from services.inference.adapters.events import ReportPublisher
from services.inference.consumers import ServingConsumer
from services.inference.deployments import Deployments
from services.registry.adapters.compared_texts import StoredComparedTexts
from services.registry.adapters.datasets import StoredDatasetDocuments
from services.registry.adapters.sql import transactions
from services.registry.adapters.tables import outbox as outbox_rows
from services.registry.bootstrap import MIGRATIONS, signer
from services.registry.consumers import Consumers
from services.registry.domain import Gate, PrimaryMetric, Specialist
from services.registry.handlers import promotions, specialists
from services.registry.queries import Queries
from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.events.envelope import Event
from tailor.events.memory import MemoryProducer
from tailor.events.outbox import Outbox
from tailor.rpc.identity import Identity
from tailor.storage.memory import MemoryStore
from tests.conftest import migrated
from tests.evaluations import make_evaluated, make_figures
from tests.unit.inference.fakes import make_world

pytestmark = pytest.mark.integration

NAME = "reports"


def request_evaluation(adapter_digest: str, request_id: str) -> None:
    raise AssertionError("nothing is stale in these tests")


class Replica:
    """An inference replica over a fake engine. What it publishes stays in its own producer."""

    def __init__(self, name: str, base: str = "tiny", merged: str = "") -> None:
        self.name, self.base = name, base
        self.producer = MemoryProducer("inference")
        self.world = make_world()
        self.models = replace(self.world.models, base=base, merged=merged)
        publish = ReportPublisher(self.producer, name).publish
        self.serving = ServingConsumer(self.models, Deployments(), publish, lambda _, work: work())

    def serving_digest(self) -> str:
        serving = self.models.table.get(NAME)
        return serving.adapter_digest if serving else ""


class House:
    """The registry, and the events it exchanges with replicas."""

    def __init__(self, engine: Engine) -> None:
        self.producer = MemoryProducer("registry")
        self.outbox = Outbox(engine, outbox_rows, self.producer)
        self.begin = transactions(engine, self.outbox)
        self.queries = Queries(engine)
        self.consumers = Consumers(
            self.begin,
            StoredDatasetDocuments(MemoryStore()),
            StoredComparedTexts(MemoryStore()),
            request_evaluation,
            signer(Identity("registry", Ed25519PrivateKey.generate())),
        )
        specialist = Specialist(NAME, "tiny", "lora", gate=Gate(PrimaryMetric("rougeL"), beat=("base",)))
        specialists.create_specialist(self.begin, specialist)

    def train(self, digest: str) -> None:
        """Add an adapter that passes the gate, which promotes it."""
        with self.begin() as tx:
            generation = tx.servings.current(NAME).generation
        trained = models_pb2.AdapterTrained(
            digest=digest, kind=models_pb2.ADAPTER_KIND_POLICY, specialist=NAME, base="tiny"
        )
        trained.manifest.uri = f"s3://models/adapters/{digest}/manifest.json"
        figures = make_figures("rougeL", base=0.1, candidate=0.2)
        evaluated = make_evaluated(digest, NAME, figures, incumbent_generation=generation)
        self.receive("adapter.trained.v1", trained)
        self.receive("adapter.evaluated.v1", evaluated)

    def receive(self, topic: str, message: models_pb2.AdapterTrained | models_pb2.AdapterEvaluated) -> None:
        self.consumers.topics()[topic](Event(topic, NAME, message.SerializeToString(), {}))

    def decisions(self) -> list[Event]:
        while self.outbox.relay():
            pass
        return self.producer.events("specialist.serving.v1")

    def send_to(self, *replicas: Replica) -> None:
        """Let the replicas read every decision."""
        for replica in replicas:
            for event in self.decisions():
                replica.serving.apply(event)

    def receive_from(self, *replicas: Replica) -> None:
        """Let the registry read everything that the replicas published, including what it has read before."""
        for replica in replicas:
            for topic in ("adapter.served.v1", "replica.seen.v1"):
                for event in replica.producer.events(topic):
                    self.consumers.topics()[topic](event)

    def serving(self) -> registry_pb2.Serving:
        serving = self.queries.serving(NAME)
        assert serving is not None
        return serving

    def rollout(self) -> dict[str, str]:
        return {entry.replica: "serves" if entry.serving else entry.reason for entry in self.serving().rollout}


def report(replica: Replica, *, leaving: bool = False, seconds_ago: float = 0) -> None:
    """Publish the report that a ready replica sends every few seconds."""
    message = models_pb2.ReplicaSeen(
        replica=replica.name, base=replica.base, leaving=leaving, adapter_digest=replica.models.merged
    )
    message.create_time.FromDatetime(datetime.now(UTC) - timedelta(seconds=seconds_ago))
    number = len(replica.producer.sent)
    replica.producer.send("replica.seen.v1", replica.name, message, f"evt_{replica.name}_{number}")


@pytest.fixture
def house(database_url: str) -> Iterator[House]:
    with migrated(database_url, MIGRATIONS) as engine:
        yield House(engine)


def test_a_promotion_and_a_rollback_are_finished_when_both_replicas_serve_them(house: House) -> None:
    first, second = Replica("inference-0"), Replica("inference-1")
    for replica in (first, second):
        report(replica)
    for digest in ("a", "b"):
        house.train(digest)
        house.send_to(first)
        house.receive_from(first, second)
        assert house.rollout() == {"inference-0": "serves", "inference-1": ""}
        assert not house.serving().finished
        house.send_to(second)
        house.receive_from(second)
        assert house.serving().finished
        assert first.serving_digest() == second.serving_digest() == digest
    promotions.roll_back(house.begin, NAME, 2)
    assert not house.serving().finished
    house.send_to(first, second)
    house.receive_from(first, second)
    assert house.serving().finished
    assert first.serving_digest() == second.serving_digest() == "a"
    assert first.world.engine.unloaded == second.world.engine.unloaded == []


def test_a_promotion_stays_unfinished_if_a_replica_refuses_it(house: House) -> None:
    first, second = Replica("inference-0"), Replica("inference-1")
    for replica in (first, second):
        report(replica)
    second.world.library.bad.add("b")
    for digest in ("a", "b"):
        house.train(digest)
        house.send_to(first, second)
    house.receive_from(first, second)
    assert house.rollout() == {"inference-0": "serves", "inference-1": "WRONG_BASE"}
    assert not house.serving().finished
    assert (first.serving_digest(), second.serving_digest()) == ("b", "a")
    entry = house.queries.catalogue_adapter(models_pb2.AdapterTrained(digest="b", specialist=NAME))
    assert (entry.serving_replicas, entry.ready_replicas) == (1, 2)


def test_a_promotion_is_finished_when_the_base_that_stands_for_the_adapter_serves_it(house: House) -> None:
    first, merged = Replica("inference-0"), Replica("inference-1", "tiny-dora", merged="b")
    first.world.library.bad.add("b")
    for digest in ("a", "b"):
        house.train(digest)
        house.send_to(first)
        report(first)
        house.receive_from(first)
    # No deployment has such a base: those of the adapter's base refuse it, and what they hold still serves.
    assert (house.rollout(), house.serving().finished) == ({"inference-0": "WRONG_BASE"}, False)
    report(merged)
    house.receive_from(merged)
    assert (house.rollout(), house.serving().finished) == ({"inference-1": ""}, False)
    house.send_to(merged)
    house.receive_from(merged)
    assert (house.rollout(), house.serving().finished) == ({"inference-1": "serves"}, True)
    promotions.roll_back(house.begin, NAME, 2)
    house.send_to(first)
    house.receive_from(first)
    assert (house.rollout(), house.serving().finished) == ({"inference-0": "serves"}, True)


def test_killed_leaving_and_other_bases_replicas_are_not_counted(house: House) -> None:
    first, second, other = Replica("inference-0"), Replica("inference-1"), Replica("inference-2", "another")
    house.train("a")
    for replica in (first, second, other):
        report(replica)
    house.send_to(first)
    house.receive_from(first, second, other)
    assert house.rollout() == {"inference-0": "serves", "inference-1": ""}
    report(second, leaving=True)
    house.receive_from(second)
    assert house.serving().finished
    # A late report from before it left has no effect.
    report(second, seconds_ago=5)
    house.receive_from(second)
    assert house.rollout() == {"inference-0": "serves"}
    killed = Replica("inference-3")
    report(killed, seconds_ago=31)
    house.receive_from(killed)
    assert house.serving().finished


def test_a_replica_that_starts_later_counts_once_it_serves(house: House) -> None:
    first = Replica("inference-0")
    report(first)
    house.train("a")
    house.send_to(first)
    house.receive_from(first)
    late = Replica("inference-1")
    house.send_to(late)
    report(late)
    house.receive_from(late)
    assert house.rollout() == {"inference-0": "serves", "inference-1": "serves"}
    assert house.serving().finished


def test_a_promotion_is_not_finished_without_a_ready_replica(house: House) -> None:
    house.train("a")
    assert house.rollout() == {}
    assert not house.serving().finished
