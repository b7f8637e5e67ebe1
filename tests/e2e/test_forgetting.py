"""Erase a document while a service is down: the receipt waits for it, nothing remains, and it stays erased.

The tests depend on their order.
"""

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from tailor.api.anonymization.v1 import anonymization_pb2, anonymization_pb2_grpc
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.api.registry.v1.registry_pb2_grpc import RegistryServiceStub
from tailor.api.synthetic.v1 import synthetic_pb2, synthetic_pb2_grpc
from tailor.cli.connections import Connections, Endpoints
from tailor.cli.producer import KafkaRecordProducer
from tailor.cli.records import Record
from tailor.local.secrets import ADMIN
from tailor.local.store_access import s3_settings
from tailor.storage.buckets import QUARANTINE
from tailor.storage.s3 import S3Store
from tests.conftest import plan_of
from tests.e2e.conftest import SAMPLE, Installation, ask_until
from tests.e2e.places import buckets, databases

pytestmark = pytest.mark.e2e

NAME = "forgetful-reports"
SOURCE = "erasure"
MARKER = "quokkaledger"
PERSON = "Perpetua Quillfeather"
OWN = f"""# Report: stocks of the {MARKER}

## Position

The {MARKER} was counted twice in the spring, and seventeen of its pages were found in places that had never been searched.

## Remedy

Every page of the {MARKER} is counted again by two people each quarter, and the count is kept next to the {MARKER} itself.
"""
SPECIALIST = models_pb2.SpecialistChanged(
    name=NAME,
    base="tiny",
    recipe="tiny",
    selection=models_pb2.Selection(sources=[SOURCE]),
    # Of 33 documents, the usual 12 % can hold out fewer than the two that a gain needs for an interval.
    rows=models_pb2.RowPolicy(held_out_percent=40),
    sampling=models_pb2.SamplingDefaults(max_tokens=24),
    evaluation=models_pb2.EvaluationPolicy(max_rows=12, max_answers=6, max_suite_items=4),
    gate=models_pb2.Gate(
        beat=["base"],
        primary=models_pb2.PrimaryMetric(metric="perplexity", min_gain=-1e9, min_gain_over_incumbent=-1e9),
    ),
    on_erasure=models_pb2.ON_ERASURE_RETIRE,
)


@dataclass
class Story:
    """State that the tests pass on to each other."""

    officer: RegistryServiceStub
    anonymization: anonymization_pb2_grpc.AnonymizationServiceStub
    erasure: registry_pb2.Erasure = field(default_factory=registry_pb2.Erasure)
    adapter: str = ""
    dataset: str = ""


@pytest.fixture(scope="module")
def story(installation: Installation) -> Iterator[Story]:
    secret = installation.new_key(common_pb2.ROLE_DATA_PROTECTION)
    yield Story(
        RegistryServiceStub(installation.channel("registry", secret)),
        anonymization_pb2_grpc.AnonymizationServiceStub(installation.channel("anonymization", secret)),
    )


def _texts() -> list[str]:
    """The marked document, two documents that name the person, and others to learn from."""
    sample = [path.read_text(encoding="utf-8") for path in sorted((SAMPLE / "documents").glob("*.md"))]
    with_person = [f"{text}\n\nAsked for by {PERSON} in the end.\n" for text in sample[:2]]
    # Other tests publish the sample unchanged; the same bytes again would be duplicates.
    return [OWN, *with_person, *(f"{text}\n\nFiled with the {SOURCE} papers.\n" for text in sample[2:])]


def _publish(installation: Installation, number: int, text: str) -> None:
    content = {"document_id": f"own-id-{number}", "text": text, "labels": {"source": SOURCE}}
    producer = KafkaRecordProducer(Connections(Endpoints(installation.root)).kafka_publisher)
    headers = {"content-type": "application/json"}
    producer.send(Record("document.submitted.v1", f"own-id-{number}", json.dumps(content).encode(), headers))()
    producer.close()


def _accounted(installation: Installation) -> int:
    flow = installation.registry.GetFlow(registry_pb2.GetFlowRequest(), timeout=60)
    return flow.anonymized + sum(flow.rejected.values())


def _documents(installation: Installation) -> list[str]:
    request = registry_pb2.ListDocumentsRequest(specialist=NAME, page_size=1000)
    items = installation.registry.ListDocuments(request, timeout=60).documents
    return [item.anonymized.document_id for item in items]


def _holding(installation: Installation, word: str) -> list[str]:
    plan = plan_of(installation.stack)
    places = [*buckets(plan), *databases(plan)]
    return [place for place, text in places if word.casefold() in text.casefold()]


def _marked_document(installation: Installation) -> str:
    plan = plan_of(installation.stack)
    objects = {place.removeprefix("corpus/") for place, text in buckets(plan) if MARKER in text}
    documents = installation.registry.ListDocuments(
        registry_pb2.ListDocumentsRequest(specialist=NAME, page_size=1000), timeout=60
    ).documents
    (document_id,) = (
        item.anonymized.document_id for item in documents if item.anonymized.text.uri[len("s3://corpus/") :] in objects
    )
    return document_id


def _adapters(installation: Installation) -> list[registry_pb2.CatalogueAdapter]:
    request = registry_pb2.ListAdaptersRequest(specialist=NAME)
    return list(installation.registry.ListAdapters(request, timeout=60).adapters)


def test_an_adapter_learns_from_the_documents_and_serves(installation: Installation, story: Story) -> None:
    installation.registry.CreateSpecialist(registry_pb2.CreateSpecialistRequest(specialist=SPECIALIST), timeout=60)
    texts, before = _texts(), _accounted(installation)
    for number, text in enumerate(texts):
        _publish(installation, number, text)
    ask_until(lambda: _accounted(installation) >= before + len(texts), "all documents", 200)
    synthetic = synthetic_pb2_grpc.SyntheticServiceStub(installation.channel("synthetic"))
    request = synthetic_pb2.BuildDatasetRequest(specialist=NAME, request_id="erasure")
    story.dataset = ask_until(lambda: synthetic.BuildDataset(request, timeout=60), "a dataset").dataset.digest
    served = ask_until(
        lambda: [item for item in _adapters(installation) if item.serving], "an adapter that serves", 400
    )
    story.adapter = served[0].adapter.digest
    holding = _holding(installation, MARKER)
    assert any(place.startswith("datasets/") for place in holding)
    assert any(place.startswith("corpus/") for place in holding)


def test_the_erasure_names_the_service_that_is_down(installation: Installation, story: Story) -> None:
    document_id = _marked_document(installation)
    os.kill(installation.pid("evaluation"), signal.SIGSTOP)
    request = registry_pb2.EraseRequest(document_ids=[document_id], request_id="e2e", reason="court-order")
    story.erasure = story.officer.Erase(request, timeout=60).erasure

    def waits_for() -> list[str]:
        request = registry_pb2.GetErasureRequest(erasure_id=story.erasure.erasure_id)
        return list(story.officer.GetErasure(request, timeout=60).erasure.waiting_for)

    ask_until(lambda: waits_for() == ["evaluation"], "the confirmation of all other services", 120)
    serving = installation.registry.GetSpecialist(registry_pb2.GetSpecialistRequest(name=NAME), timeout=60).serving
    assert serving.decision.adapter_digest != story.adapter


def test_the_receipt_is_signed_when_the_service_is_back_and_nothing_remains(
    installation: Installation, story: Story
) -> None:
    os.kill(installation.pid("evaluation"), signal.SIGKILL)
    asked = registry_pb2.GetErasureRequest(erasure_id=story.erasure.erasure_id)

    def signed() -> registry_pb2.Erasure | None:
        erasure = story.officer.GetErasure(asked, timeout=60).erasure
        return erasure if erasure.HasField("receipt") else None

    erasure = ask_until(signed, "a receipt", 120)
    trust = json.loads(plan_of(installation.stack).secrets.trust_file.read_text(encoding="utf-8"))
    public_key = load_pem_public_key(trust["registry"].encode()).public_bytes(Encoding.Raw, PublicFormat.Raw)
    assert erasure.receipt.public_key == public_key
    Ed25519PublicKey.from_public_bytes(public_key).verify(erasure.receipt.signature, erasure.receipt.body.encode())
    body = json.loads(erasure.receipt.body)
    assert story.dataset in body["datasets"]
    assert (story.adapter, "retired") in {(entry["digest"], entry["is"]) for entry in body["adapters"]}
    assert body["services"]["training"]["adapter_objects"] > 0
    assert _holding(installation, MARKER) == []
    assert _holding(installation, "own-id-0") == []
    plan = plan_of(installation.stack)
    store = S3Store.from_settings(s3_settings(plan.stores.s3(ADMIN)))
    assert store.list_keys(QUARANTINE, f"documents/{erasure.document_ids[0]}/") == []
    assert not store.exists("models", f"adapters/{story.adapter}/manifest.json")
    assert not store.exists("datasets", f"{story.dataset}/manifest.json")


def test_a_dataset_without_the_document_supersedes_the_old_one(installation: Installation, story: Story) -> None:
    datasets = installation.registry.ListDatasets(
        registry_pb2.ListDatasetsRequest(specialist=NAME), timeout=60
    ).datasets
    newest = datasets[0]
    assert newest.digest != story.dataset
    request = registry_pb2.ListDocumentsRequest(dataset=newest.digest, page_size=1000)
    listed = installation.registry.ListDocuments(request, timeout=60).documents
    assert len(listed) == newest.documents > 0
    assert not set(story.erasure.document_ids) & {item.anonymized.document_id for item in listed}


def test_a_republished_document_stays_erased_until_the_erasure_is_lifted(
    installation: Installation, story: Story
) -> None:
    before = installation.registry.GetFlow(registry_pb2.GetFlowRequest(), timeout=60).rejected["ERASED"]
    _publish(installation, 0, OWN)

    def refused() -> bool:
        flow = installation.registry.GetFlow(registry_pb2.GetFlowRequest(), timeout=60)
        return flow.rejected["ERASED"] == before + 1

    ask_until(refused, "a rejection", 60)
    assert _holding(installation, MARKER) == []
    document_id = story.erasure.document_ids[0]
    story.officer.LiftErasure(registry_pb2.LiftErasureRequest(document_id=document_id), timeout=60)

    def back() -> bool:
        _publish(installation, 0, OWN)
        return document_id in _documents(installation)

    ask_until(back, "the lifted document", 60)


def test_a_person_is_resolved_erased_and_masked_from_then_on(installation: Installation, story: Story) -> None:
    dry_run = anonymization_pb2.ResolveSubjectRequest(subject=PERSON, dry_run=True)
    preview = story.anonymization.ResolveSubject(dry_run, timeout=60)
    assert len(preview.document_ids) == 2
    resolved = story.anonymization.ResolveSubject(anonymization_pb2.ResolveSubjectRequest(subject=PERSON), timeout=60)
    assert list(resolved.document_ids) == list(preview.document_ids)
    assert resolved.vault_entries >= 1
    request = registry_pb2.EraseRequest(document_ids=resolved.document_ids, reason="subject-request")
    erasure_id = story.officer.Erase(request, timeout=60).erasure.erasure_id
    asked = registry_pb2.GetErasureRequest(erasure_id=erasure_id)
    ask_until(lambda: story.officer.GetErasure(asked, timeout=60).erasure.HasField("receipt"), "a receipt", 120)
    assert not set(resolved.document_ids) & set(_documents(installation))
    before = set(_documents(installation))
    _publish(installation, 40, f"# Note\n\nThe {MARKER} is kept by {PERSON} of the harbour office since last spring.\n")
    ask_until(lambda: set(_documents(installation)) - before, "a new document", 60)
    texts = [text for place, text in buckets(plan_of(installation.stack)) if "harbour office since" in text]
    assert texts and all("[PERSON]" in text for text in texts)
