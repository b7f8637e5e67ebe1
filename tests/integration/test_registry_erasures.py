"""Erasing in the registry, over PostgreSQL."""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from sqlalchemy import Engine

from services.registry import erasures, handlers, promotions
from services.registry.adapters.queries import Queries
from services.registry.adapters.sql import begin
from services.registry.adapters.tables import outbox as outbox_rows
from services.registry.bootstrap import MIGRATIONS, signer
from services.registry.consumers import Consumers
from services.registry.domain import RETIRE, Erasure, Specialist
from services.registry.gate import Gate, Threshold
from tailor.api.events.v1 import documents_pb2, models_pb2
from tailor.errors import FailedPrecondition, InvalidArgument, NotFound
from tailor.events.envelope import Event
from tailor.events.memory import MemoryProducer
from tailor.events.outbox import Outbox
from tailor.rpc.identity import Identity
from tests.conftest import migrated

pytestmark = pytest.mark.integration

NAME = "reports"
DOCUMENTS = [f"doc_{number:032x}" for number in range(4)]
AWAITS = ("anonymization", "ingestion")
SPECIALIST = Specialist(NAME, "tiny", "lora", gate=Gate((Threshold("rougeL", 0.0),), 0))


class NoEvaluator:
    def evaluate(self, adapter_digest: str, request_id: str) -> None:
        raise AssertionError("nothing is stale here")


class World:
    def __init__(self, engine: Engine) -> None:
        self.producer = MemoryProducer("registry")
        self.outbox = Outbox(engine, outbox_rows, self.producer)
        self.begin = begin(engine, self.outbox)
        self.queries = Queries(engine)
        identity = Identity("registry", Ed25519PrivateKey.generate())
        self.topics = Consumers(self.begin, NoEvaluator(), signer(identity)).topics()

    def tell(self, topic: str, message: object) -> None:
        self.topics[topic](Event(topic, "key", message.SerializeToString(), {}))  # type: ignore[attr-defined]

    def stated(self, topic: str) -> list[documents_pb2.DocumentErased]:
        while self.outbox.relay():
            pass
        return list(self.producer.messages(topic))  # type: ignore[arg-type]

    def catalogue(self, document_id: str) -> None:
        self.tell(
            "document.anonymized.v1",
            documents_pb2.DocumentAnonymized(document_id=document_id, submission_id=f"sub_{document_id}"),
        )

    def train(
        self, digest: str, dataset: str, document_ids: list[str], *, rouge: float = 0.5, parent: str = ""
    ) -> None:
        built = models_pb2.DatasetBuilt(digest=dataset, specialist=NAME, document_ids=document_ids)
        self.tell("dataset.built.v1", built)
        trained = models_pb2.AdapterTrained(
            digest=digest, kind=1, specialist=NAME, dataset_digest=dataset, base="tiny", parent_digest=parent
        )
        self.tell("adapter.trained.v1", trained)
        with self.begin() as tx:
            generation = tx.serving(NAME).generation
        evaluated = models_pb2.AdapterEvaluated(
            evaluation_id=f"evl_{digest}",
            adapter_digest=digest,
            specialist=NAME,
            base=models_pb2.Scores(values={"rougeL": 0.1}),
            candidate=models_pb2.Scores(values={"rougeL": rouge, "parity": 0.01}),
            rows=8,
            incumbent_generation=generation,
        )
        self.tell("adapter.evaluated.v1", evaluated)

    def erase(self, *document_ids: str, request: str = "1", reason: str = "subject-request") -> Erasure:
        asked = erasures.Request(f"ers_{request}", list(document_ids), reason)
        return erasures.erase(self.begin, AWAITS, asked)

    def forget(self, erasure: Erasure, service: str) -> Erasure:
        for document_id in erasure.document_ids:
            answer = documents_pb2.DocumentForgotten(
                erasure_id=erasure.erasure_id, document_id=document_id, service=service, counts={"objects": 2}
            )
            self.tell("document.forgotten.v1", answer)
        return erasures.get_erasure(self.begin, erasure.erasure_id)

    def serving(self) -> str:
        with self.begin() as tx:
            return tx.serving(NAME).adapter_digest


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with migrated(database_url, MIGRATIONS) as engine:
        yield World(engine)


def test_a_receipt_is_signed_once_all_services_answered_and_says_for_whom_it_waits_before(world: World) -> None:
    world.catalogue(DOCUMENTS[0])
    erasure = world.erase(DOCUMENTS[0], DOCUMENTS[1])
    assert erasure.waiting_for == AWAITS and erasure.receipt is None
    assert world.forget(erasure, "ingestion").waiting_for == ("anonymization",)
    done = world.forget(erasure, "anonymization")
    assert done.waiting_for == () and done.receipt is not None
    Ed25519PublicKey.from_public_bytes(done.receipt.public_key).verify(
        done.receipt.signature, done.receipt.body.encode()
    )
    body = json.loads(done.receipt.body)
    assert body["document_ids"] == DOCUMENTS[:2]
    assert body["services"]["ingestion"] == {"objects": 4}
    assert body["services"]["registry"] == {"entries": 1, "submissions": 1}
    assert world.forget(erasure, "ingestion").receipt == done.receipt


def test_erasing_again_changes_nothing(world: World) -> None:
    erasure = world.erase(DOCUMENTS[0])
    assert world.erase(DOCUMENTS[0]) == erasure
    assert world.erase(DOCUMENTS[0], request="2") == erasure
    more = world.erase(DOCUMENTS[0], DOCUMENTS[1], request="3")
    assert more.document_ids == (DOCUMENTS[1],)
    assert [one.document_id for one in world.stated("document.erased.v1")] == DOCUMENTS[:2]


def test_what_comes_late_of_an_erased_document_is_not_catalogued(world: World) -> None:
    world.erase(DOCUMENTS[0])
    world.catalogue(DOCUMENTS[0])
    world.catalogue(DOCUMENTS[1])
    assert [one.document_id for one in world.queries.documents(None, "", 10)] == [DOCUMENTS[1]]


def test_a_lifted_document_is_catalogued_again_and_stated(world: World) -> None:
    world.erase(DOCUMENTS[0])
    lifted = erasures.lift(world.begin, DOCUMENTS[0])
    assert lifted.lifted == (DOCUMENTS[0],)
    world.catalogue(DOCUMENTS[0])
    assert len(world.queries.documents(None, "", 10)) == 1
    assert [one.lifted for one in world.stated("document.erased.v1")] == [False, True]
    with pytest.raises(NotFound):
        erasures.lift(world.begin, DOCUMENTS[0])


def test_a_specialist_that_marks_goes_on_serving_what_is_tainted(world: World) -> None:
    handlers.create_specialist(world.begin, SPECIALIST)
    world.train("one", "d1", DOCUMENTS[:2])
    world.erase(DOCUMENTS[0])
    assert world.serving() == "one"
    entry = world.queries.catalogue_adapter(models_pb2.AdapterTrained(digest="one", specialist=NAME))
    assert entry.tainted
    stated = world.stated("document.erased.v1")[0]
    assert (list(stated.dataset_digests), list(stated.adapter_digests)) == (["d1"], ["one"])
    assert not stated.retired_adapter_digests


def test_a_specialist_that_retires_goes_back_to_what_did_not_learn_from_it(world: World) -> None:
    handlers.create_specialist(world.begin, replace(SPECIALIST, on_erasure=RETIRE))
    world.train("clean", "d0", DOCUMENTS[1:])
    world.train("one", "d1", DOCUMENTS, rouge=0.6)
    world.train("two", "d2", DOCUMENTS[1:], rouge=0.7, parent="one")
    assert world.serving() == "two"
    erasure = world.erase(DOCUMENTS[0])
    assert world.serving() == "clean"
    assert sorted(world.stated("document.erased.v1")[0].retired_adapter_digests) == ["one", "two"]
    with pytest.raises(FailedPrecondition, match="ADAPTER_RETIRED"):
        promotions.promote(world.begin, NAME, "one", 4)
    for service in AWAITS:
        erasure = world.forget(erasure, service)
    assert erasure.receipt is not None
    adapters = json.loads(erasure.receipt.body)["adapters"]
    assert [(one["digest"], one["is"]) for one in adapters] == [("one", "retired"), ("two", "retired")]


def test_a_specialist_that_retires_goes_back_to_the_base_where_everything_learned_from_it(world: World) -> None:
    handlers.create_specialist(world.begin, replace(SPECIALIST, on_erasure=RETIRE))
    world.train("one", "d1", DOCUMENTS)
    world.erase(DOCUMENTS[0])
    assert world.serving() == ""


def test_an_adapter_that_was_trained_late_on_an_erased_document_does_not_pass_the_gate(world: World) -> None:
    handlers.create_specialist(world.begin, replace(SPECIALIST, on_erasure=RETIRE))
    world.erase(DOCUMENTS[0])
    world.train("late", "d1", DOCUMENTS)
    assert world.serving() == ""
    entry = world.queries.catalogue_adapter(models_pb2.AdapterTrained(digest="late", specialist=NAME))
    assert entry.tainted and "retired" in entry.refusals[0]


@pytest.mark.parametrize(("document_ids", "reason"), [([], "x"), (["memo-7"], "x"), (DOCUMENTS[:1], "Sarah Jenkins")])
def test_refuses_what_could_hold_personal_data(world: World, document_ids: list[str], reason: str) -> None:
    with pytest.raises(InvalidArgument):
        world.erase(*document_ids, reason=reason)


def test_erasures_are_listed_newest_first(world: World) -> None:
    for number in range(3):
        world.erase(DOCUMENTS[number], request=str(number))
    found = erasures.list_erasures(world.begin, None, 2)
    assert [erasure.erasure_id for _, erasure in found] == ["ers_2", "ers_1"]
    assert [one.erasure_id for _, one in erasures.list_erasures(world.begin, found[-1][0], 2)] == ["ers_0"]
