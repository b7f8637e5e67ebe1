"""Erasing documents in the registry, over PostgreSQL."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from sqlalchemy import Engine

from services.registry.adapters.compared_texts import StoredComparedTexts
from services.registry.adapters.datasets import StoredDatasetDocuments
from services.registry.adapters.sql import transactions
from services.registry.adapters.tables import outbox as outbox_rows
from services.registry.bootstrap import MIGRATIONS, signer
from services.registry.consumers import Consumers
from services.registry.domain import RETIRE, Erasure, ErasureRequest, Gate, PrimaryMetric, Specialist
from services.registry.handlers import erasures, promotions, specialists
from services.registry.queries import Queries
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import documents_pb2, models_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from tailor.events.envelope import Event
from tailor.events.memory import MemoryProducer
from tailor.events.outbox import Outbox
from tailor.rpc.identity import Identity
from tailor.storage.memory import MemoryStore
from tests.conftest import migrated
from tests.datasets import built
from tests.evaluations import make_evaluated, make_figures

pytestmark = pytest.mark.integration

NAME = "reports"
DOCUMENTS = [f"doc_{number:032x}" for number in range(4)]
AWAITS = ("anonymization", "ingestion")
SPECIALIST = Specialist(NAME, "tiny", "lora", gate=Gate(PrimaryMetric("rougeL"), beat=("base",)))


def request_evaluation(adapter_digest: str, request_id: str) -> None:
    raise AssertionError("nothing is stale in these tests")


class World:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.producer = MemoryProducer("registry")
        self.outbox = Outbox(engine, outbox_rows, self.producer)
        self.begin = transactions(engine, self.outbox)
        self.queries = Queries(engine)
        identity = Identity("registry", Ed25519PrivateKey.generate())
        self.store = MemoryStore()
        consumers = Consumers(
            self.begin,
            StoredDatasetDocuments(self.store),
            StoredComparedTexts(self.store),
            request_evaluation,
            signer(identity),
            awaits=AWAITS,
        )
        self.topics = consumers.topics()

    def receive(self, topic: str, message: object) -> None:
        self.topics[topic](Event(topic, "key", message.SerializeToString(), {}))  # type: ignore[attr-defined]

    def published(self, topic: str) -> list[documents_pb2.DocumentErased]:
        while self.outbox.relay():
            pass
        return list(self.producer.messages(topic))  # type: ignore[arg-type]

    def catalogue(self, document_id: str) -> None:
        self.receive(
            "document.anonymized.v1",
            documents_pb2.DocumentAnonymized(document_id=document_id, submission_id=f"sub_{document_id}"),
        )

    def train(
        self, digest: str, dataset: str, document_ids: list[str], *, rouge: float = 0.5, parent: str = ""
    ) -> None:
        self.receive("dataset.built.v1", built(self.store, dataset, NAME, document_ids))
        trained = models_pb2.AdapterTrained(
            digest=digest,
            kind=models_pb2.ADAPTER_KIND_POLICY,
            specialist=NAME,
            dataset_digest=dataset,
            base="tiny",
            parent_digest=parent,
        )
        self.receive("adapter.trained.v1", trained)
        with self.begin() as tx:
            generation = tx.servings.current(NAME).generation
        evaluated = make_evaluated(
            digest, NAME, make_figures("rougeL", base=0.1, candidate=rouge), incumbent_generation=generation
        )
        self.receive("adapter.evaluated.v1", evaluated)

    def erase(self, *document_ids: str, request: str = "1", reason: str = "subject-request") -> Erasure:
        return erasures.erase(self.begin, AWAITS, ErasureRequest(f"ers_{request}", list(document_ids), reason))

    def forget(self, erasure: Erasure, service: str) -> Erasure:
        for document_id in erasure.document_ids:
            answer = documents_pb2.DocumentForgotten(
                erasure_id=erasure.erasure_id, document_id=document_id, service=service, counts={"objects": 2}
            )
            self.receive("document.forgotten.v1", answer)
        return erasures.get_erasure(self.begin, erasure.erasure_id)

    def serving(self) -> str:
        with self.begin() as tx:
            return tx.servings.current(NAME).adapter_digest


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with migrated(database_url, MIGRATIONS) as engine:
        yield World(engine)


def test_a_receipt_is_signed_after_the_last_answer_and_pending_services_are_named(world: World) -> None:
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
    assert body["services"]["registry"] == {"entries": 1, "submissions": 1, "outcomes": 0, "drafts": 0}
    assert world.forget(erasure, "ingestion").receipt == done.receipt


def test_a_receipt_counts_only_the_services_that_the_list_of_topics_names(world: World) -> None:
    erasure = world.erase(DOCUMENTS[0])
    for service, document_id in (
        ("anonymization-2", DOCUMENTS[0]),
        ("registry", DOCUMENTS[0]),
        ("ingestion", DOCUMENTS[3]),
    ):
        forged = documents_pb2.DocumentForgotten(
            erasure_id=erasure.erasure_id, document_id=document_id, service=service, counts={"objects": 9}
        )
        with pytest.raises(PermissionDenied):
            world.receive("document.forgotten.v1", forged)
    world.forget(erasure, "ingestion")
    receipt = world.forget(erasure, "anonymization").receipt
    assert receipt is not None
    assert set(json.loads(receipt.body)["services"]) == {"anonymization", "ingestion", "registry"}


def test_a_row_that_comes_from_no_document_is_erased_like_a_document(world: World) -> None:
    row_id = f"txt_{5:032x}"
    erasure = world.erase(DOCUMENTS[0], row_id)
    assert erasure.document_ids == (DOCUMENTS[0], row_id)
    assert [message.document_id for message in world.published("document.erased.v1")] == [DOCUMENTS[0], row_id]


def test_erasing_is_idempotent(world: World) -> None:
    erasure = world.erase(DOCUMENTS[0])
    assert world.erase(DOCUMENTS[0]) == erasure
    assert world.erase(DOCUMENTS[0], request="2") == erasure
    more = world.erase(DOCUMENTS[0], DOCUMENTS[1], request="3")
    assert more.document_ids == (DOCUMENTS[1],)
    assert [event.document_id for event in world.published("document.erased.v1")] == DOCUMENTS[:2]


def list_documents(world: World) -> list[str]:
    page = world.queries.list_documents(registry_pb2.ListDocumentsRequest())
    return [item.anonymized.document_id for item in page.items]


def test_a_late_version_of_an_erased_document_is_not_catalogued(world: World) -> None:
    world.erase(DOCUMENTS[0])
    world.catalogue(DOCUMENTS[0])
    world.catalogue(DOCUMENTS[1])
    assert list_documents(world) == [DOCUMENTS[1]]


def test_a_lifted_document_is_catalogued_again_and_published(world: World) -> None:
    world.erase(DOCUMENTS[0])
    lifted = erasures.lift_erasure(world.begin, DOCUMENTS[0])
    assert lifted.lifted == (DOCUMENTS[0],)
    world.catalogue(DOCUMENTS[0])
    assert list_documents(world) == [DOCUMENTS[0]]
    assert [event.lifted for event in world.published("document.erased.v1")] == [False, True]
    with pytest.raises(NotFound):
        erasures.lift_erasure(world.begin, DOCUMENTS[0])


def test_a_specialist_that_marks_keeps_serving_a_tainted_adapter(world: World) -> None:
    specialists.create_specialist(world.begin, SPECIALIST)
    world.train("one", "d1", DOCUMENTS[:2])
    world.erase(DOCUMENTS[0])
    assert world.serving() == "one"
    entry = world.queries.catalogue_adapter(models_pb2.AdapterTrained(digest="one", specialist=NAME))
    assert entry.tainted
    event = world.published("document.erased.v1")[0]
    assert (list(event.dataset_digests), list(event.adapter_digests)) == (["d1"], ["one"])
    assert not event.retired_adapter_digests


def test_a_specialist_that_retires_returns_to_an_untainted_adapter(world: World) -> None:
    specialists.create_specialist(world.begin, replace(SPECIALIST, on_erasure=RETIRE))
    world.train("clean", "d0", DOCUMENTS[1:])
    world.train("one", "d1", DOCUMENTS, rouge=0.6)
    world.train("two", "d2", DOCUMENTS[1:], rouge=0.7, parent="one")
    assert world.serving() == "two"
    erasure = world.erase(DOCUMENTS[0])
    assert world.serving() == "clean"
    assert sorted(world.published("document.erased.v1")[0].retired_adapter_digests) == ["one", "two"]
    with pytest.raises(FailedPrecondition, match="ADAPTER_RETIRED"):
        promotions.promote(world.begin, NAME, "one", 4)
    for service in AWAITS:
        erasure = world.forget(erasure, service)
    assert erasure.receipt is not None
    adapters = json.loads(erasure.receipt.body)["adapters"]
    assert [(adapter["digest"], adapter["is"]) for adapter in adapters] == [("one", "retired"), ("two", "retired")]


def test_a_specialist_that_retires_returns_to_the_base_if_every_adapter_is_tainted(world: World) -> None:
    specialists.create_specialist(world.begin, replace(SPECIALIST, on_erasure=RETIRE))
    world.train("one", "d1", DOCUMENTS)
    world.erase(DOCUMENTS[0])
    assert world.serving() == ""


def test_an_adapter_trained_later_on_an_erased_document_does_not_pass_the_gate(world: World) -> None:
    specialists.create_specialist(world.begin, replace(SPECIALIST, on_erasure=RETIRE))
    world.erase(DOCUMENTS[0])
    world.train("late", "d1", DOCUMENTS)
    assert world.serving() == ""
    entry = world.queries.catalogue_adapter(models_pb2.AdapterTrained(digest="late", specialist=NAME))
    assert entry.tainted and "retired" in entry.reasons[0]


def tainted(world: World, *digests: str) -> list[str]:
    with world.begin() as tx:
        return [digest for digest in digests if tx.lineage.taints.find(adapter_digest=digest)]


def receive_adapter(world: World, digest: str, dataset: str, **origins: Any) -> None:
    world.receive(
        "adapter.trained.v1",
        models_pb2.AdapterTrained(
            digest=digest,
            kind=models_pb2.ADAPTER_KIND_POLICY,
            specialist=NAME,
            dataset_digest=dataset,
            base="tiny",
            **origins,
        ),
    )


def receive_pairs(world: World, dataset: str, *draft_adapters: str) -> None:
    message = built(world.store, dataset, NAME, [])
    message.kind = models_pb2.DATASET_KIND_PREFERENCE
    message.draft_adapter_digests.extend(draft_adapters)
    world.receive("dataset.built.v1", message)


@pytest.mark.parametrize("erased_first", [False, True])
def test_taint_follows_reward_adapters_merged_bases_and_drafts_that_were_ranked(
    world: World, erased_first: bool
) -> None:
    specialists.create_specialist(world.begin, SPECIALIST)
    world.receive("dataset.built.v1", built(world.store, "d1", NAME, DOCUMENTS[:1]))
    if erased_first:
        world.erase(DOCUMENTS[0])
    receive_adapter(world, "sft", "d1")
    receive_pairs(world, "p1", "other")
    receive_adapter(world, "reward", "p1", parent_digest="sft")
    receive_adapter(world, "scored", "p1", reward_adapter_digest="reward")
    receive_adapter(world, "merged", "p1", base_adapter_digest="sft")
    receive_pairs(world, "p2", "other", "merged")
    receive_adapter(world, "ranked", "p2")
    receive_adapter(world, "clean", "p1")
    # Its dataset is announced later than the adapter itself.
    receive_adapter(world, "early", "p3")
    receive_pairs(world, "p3", "ranked")
    if not erased_first:
        world.erase(DOCUMENTS[0])
    names = ("sft", "reward", "scored", "merged", "ranked", "early", "clean")
    assert tainted(world, *names) == [name for name in names if name != "clean"]
    newest = world.published("document.erased.v1")[-1]
    assert "ranked" in newest.adapter_digests or erased_first


def test_a_dataset_recorded_after_the_erasure_is_forgotten_by_every_service(world: World) -> None:
    specialists.create_specialist(world.begin, SPECIALIST)
    world.train("one", "d1", DOCUMENTS[:2])
    world.erase(DOCUMENTS[0])
    world.receive("dataset.built.v1", built(world.store, "d2", NAME, DOCUMENTS))
    before, after = world.published("document.erased.v1")
    assert (list(before.dataset_digests), list(after.dataset_digests)) == (["d1"], ["d1", "d2"])
    assert (after.document_id, list(after.adapter_digests)) == (DOCUMENTS[0], ["one"])


def test_a_dataset_deleted_before_it_was_read_taints_its_adapters_by_synthetics_answer(world: World) -> None:
    specialists.create_specialist(world.begin, SPECIALIST)
    dataset = built(world.store, "d1", NAME, DOCUMENTS[:1])
    world.store.objects.clear()
    world.receive("dataset.built.v1", dataset)
    for digest in ("one", "two"):
        if digest == "two":
            erasure = world.erase(DOCUMENTS[0])
            world.receive(
                "document.forgotten.v1",
                documents_pb2.DocumentForgotten(
                    erasure_id=erasure.erasure_id,
                    document_id=DOCUMENTS[0],
                    service="synthetic",
                    dataset_digests=["d1"],
                ),
            )
        trained = models_pb2.AdapterTrained(digest=digest, specialist=NAME, dataset_digest="d1", base="tiny")
        world.receive("adapter.trained.v1", trained)
    entries = [
        world.queries.catalogue_adapter(models_pb2.AdapterTrained(digest=digest, specialist=NAME))
        for digest in ("one", "two")
    ]
    assert [entry.tainted for entry in entries] == [True, True]


@pytest.mark.parametrize(("document_ids", "reason"), [([], "x"), (["memo-7"], "x"), (DOCUMENTS[:1], "Sarah Jenkins")])
def test_refuses_ids_and_reasons_that_could_contain_personal_data(
    world: World, document_ids: list[str], reason: str
) -> None:
    with pytest.raises(InvalidArgument):
        world.erase(*document_ids, reason=reason)


def test_erasures_are_listed_newest_first_and_found_by_document_and_by_service_that_has_not_answered(
    world: World,
) -> None:
    first, *_ = (world.erase(DOCUMENTS[number], request=str(number)) for number in range(3))

    def listed(**query: Any) -> list[str]:
        with world.begin() as tx:
            page = tx.erasures.list_page(registry_pb2.ListErasuresRequest(query=common_pb2.ListQuery(**query)))
        return [erasure.erasure_id for erasure in page.items]

    assert listed() == ["ers_2", "ers_1", "ers_0"]
    assert listed(order_by="create_time") == ["ers_0", "ers_1", "ers_2"]
    assert listed(search=DOCUMENTS[1]) == ["ers_1"]
    assert listed(search=first.waiting_for[0]) == listed(filters={"state": "waiting"}, order_by="documents desc")
    for service in first.waiting_for:
        world.forget(first, service)
    assert listed(search=first.waiting_for[0]) == ["ers_2", "ers_1"]
    assert listed(filters={"state": "succeeded"}) == ["ers_0"]


def anonymized(
    document_id: str, sequence: int, sha256: str, supersede_id: str = ""
) -> documents_pb2.DocumentAnonymized:
    return documents_pb2.DocumentAnonymized(
        document_id=document_id,
        submission_id=f"sub_{document_id}_{sequence}",
        version=common_pb2.Version(sequence=sequence, digest=f"digest-{sequence}"),
        text=common_pb2.ObjectRef(uri=f"s3://corpus/documents/{sha256}", sha256=sha256, size_bytes=9),
        supersede_id=supersede_id,
    )


def test_a_replayed_version_supersedes_datasets_and_taints_adapters_but_the_document_stays(world: World) -> None:
    document_id, erasure_id = DOCUMENTS[0], "ers_" + "7" * 32
    specialists.create_specialist(world.begin, SPECIALIST)
    world.receive("document.anonymized.v1", anonymized(document_id, 1, "aa"))
    world.train("ad1", "ds1", [document_id])
    world.receive("document.anonymized.v1", anonymized(document_id, 2, "bb", erasure_id))
    world.receive("document.anonymized.v1", anonymized(document_id, 2, "bb", erasure_id))
    (event,) = world.published("document.erased.v1")
    assert (event.superseded_by.sequence, event.superseded_by.digest) == (2, "digest-2")
    assert list(event.dataset_digests) == ["ds1"] and list(event.adapter_digests) == ["ad1"]
    erasure = erasures.get_erasure(world.begin, erasure_id)
    assert erasure.reason == "policy-replay" and erasure.document_ids == (document_id,)
    with world.begin() as tx:
        assert not tx.erasures.is_erased(document_id) and tx.facts.find_document(document_id) is not None
    assert erasures.list_learners(world.begin, [document_id])[1][0].tainted
    for service in AWAITS:
        erasure = world.forget(erasure, service)
    assert erasure.receipt is not None and "policy-replay" in erasure.receipt.body
    # A second document of the same batch: the receipt is signed again after its answers.
    world.receive("document.anonymized.v1", anonymized(DOCUMENTS[1], 1, "cc"))
    world.receive("document.anonymized.v1", anonymized(DOCUMENTS[1], 2, "dd", erasure_id))
    assert erasures.get_erasure(world.begin, erasure_id).receipt is None
    # An adapter that was trained on the old dataset and arrives late is tainted too.
    world.train("ad2", "ds1", [document_id])
    assert [learner.tainted for learner in erasures.list_learners(world.begin, [document_id])[1]] == [True, True]


def test_a_replay_that_changes_nothing_supersedes_nothing(world: World) -> None:
    world.receive("document.anonymized.v1", anonymized(DOCUMENTS[0], 1, "aa"))
    world.receive("document.anonymized.v1", anonymized(DOCUMENTS[0], 2, "aa", "ers_" + "7" * 32))
    assert world.published("document.erased.v1") == []


@pytest.mark.parametrize("is_refused", [True, False])
def test_a_replayed_text_that_the_barrier_refuses_leaves_catalogue_and_datasets(
    world: World, *, is_refused: bool
) -> None:
    document_id, erasure_id = DOCUMENTS[0], "ers_" + "8" * 32
    specialists.create_specialist(world.begin, SPECIALIST)
    world.receive("document.anonymized.v1", anonymized(document_id, 1, "aa"))
    world.train("ad1", "ds1", [document_id])
    rejected = documents_pb2.DocumentRejected(document_id=document_id, submission_id="sub_2")
    if is_refused:
        rejected.supersede_id = erasure_id
        rejected.version.sequence = 2
    world.receive("document.rejected.v1", rejected)
    with world.begin() as tx:
        assert (tx.facts.find_document(document_id) is None) == is_refused
    events = world.published("document.erased.v1")
    assert [(event.superseded_by.sequence, [*event.dataset_digests]) for event in events] == [(2, ["ds1"])] * is_refused
    assert [learner.tainted for learner in erasures.list_learners(world.begin, [document_id])[1]] == [is_refused]
