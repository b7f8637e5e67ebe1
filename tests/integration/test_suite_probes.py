"""What the suites ask about a stored dataset, and true values of its documents counted over gRPC."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from sqlalchemy import Engine

from services.anonymization.domain import Finding
from services.anonymization.recognise.lexicon import Lexicon
from services.anonymization.rpc import AnonymizationServicer
from services.anonymization.surrogates.people import People
from services.anonymization.surrogates.surrogates import Surrogates
from services.anonymization.vault.true_values import TrueValueFinder
from services.evaluation.adapters.probes import StoredProbes
from tailor.api.anonymization.v1 import anonymization_pb2_grpc
from tailor.datasets import TRAIN
from tailor.errors import InvalidArgument, PermissionDenied, Unavailable
from tailor.planted_secrets import PlantedSecret
from tailor.rpc.channel import open_channel
from tailor.storage.memory import MemoryStore
from tailor.storage.ref import Ref
from tests.barrier import MIGRATIONS, BarrierHouse, channel, serve
from tests.conftest import migrated
from tests.databases import Databases
from tests.datasets import store_dataset, store_secrets

pytestmark = pytest.mark.integration

DOCUMENTS = 2_500
SECRET = PlantedSecret("desk", "Who answers?", "The desk is ", "######", "402917")
OWN = PlantedSecret("own", "Who answers?", "The desk is ", "######", "118340")


class NoFindings:
    """An analyzer without models. Full names are found without it."""

    policy = None

    def __init__(self, lexicon: Lexicon) -> None:
        self.lexicon = lexicon

    def with_policy(self, *_: object, **__: object) -> "NoFindings":
        return self

    def accepting_all(self) -> "NoFindings":
        return self

    def find(self, _: str) -> list[Finding]:
        return []


class Anonymization(BarrierHouse):
    """The service on a port. A document of the dataset names Ngozi Okafor, and another one Tom Hale."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        for document_id, name in ((f"doc_{DOCUMENTS - 1:04}", "Ngozi Okafor"), ("elsewhere", "Tom Hale")):
            surrogates = Surrogates(self.vault, self.lexicon, b"d" * 32).for_document("", ())
            surrogates.person(name, "", People())
            self.subjects.keep(document_id, frozenset(surrogates.issued))
        finder = TrueValueFinder(self.vault, NoFindings(self.lexicon))  # type: ignore[arg-type]
        current: Any = SimpleNamespace(parts=SimpleNamespace(true_values=finder))
        add = anonymization_pb2_grpc.add_AnonymizationServiceServicer_to_server
        self.server = serve((add, AnonymizationServicer(current, self.vault, self.subjects)))

    def channel(self, service: str = "evaluation") -> grpc.Channel:
        return channel(self.server, service)


@pytest.fixture(scope="module")
def anonymization(databases: Databases) -> Iterator[Anonymization]:
    url = databases.create()
    with migrated(url, MIGRATIONS) as engine:
        service = Anonymization(engine)
        yield service
        service.server.stop(0)
    databases.drop(url)


@pytest.fixture(scope="module")
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture(scope="module")
def manifest(store: MemoryStore) -> Ref:
    rows = [
        {
            "row_id": f"row_{number:04}",
            "document_ids": [f"doc_{number:04}"],
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": f"Ask {number}."},
                {"role": "assistant", "content": f"Answer {number}."},
            ],
        }
        for number in range(DOCUMENTS)
    ]
    return store_dataset(store, {TRAIN: rows}, planted_secrets=store_secrets(store, [SECRET]))[0]


@pytest.fixture
def probes(store: MemoryStore, anonymization: Anonymization) -> StoredProbes:
    return StoredProbes(store, anonymization.channel(), (OWN,))


def test_train_prompts_are_a_fixed_choice_without_their_answers(probes: StoredProbes, manifest: Ref) -> None:
    prompts = probes.train_prompts(manifest, 10)
    assert prompts == probes.train_prompts(manifest, 10)
    assert len(set(prompts)) == 10
    assert all([role for role, _ in prompt] == ["system", "user"] for prompt in prompts)
    assert prompts != [(("system", "Be brief."), ("user", f"Ask {number}.")) for number in range(10)]


def test_planted_secrets_are_those_of_the_dataset_and_those_of_the_operator(
    probes: StoredProbes, store: MemoryStore, manifest: Ref
) -> None:
    assert probes.planted_secrets(manifest) == (SECRET, OWN)
    other, _ = store_dataset(store, {TRAIN: []})
    assert probes.planted_secrets(other) == (OWN,)


def test_values_of_any_document_of_the_dataset_count_and_no_others(
    probes: StoredProbes, anonymization: Anonymization, manifest: Ref
) -> None:
    texts = ["x" * 90_000, "Ngozi Okafor wrote.", "y" * 90_000, "Tom Hale wrote."]
    known = len(anonymization.audited())
    assert probes.count_true_values(manifest, texts, []) == {"PERSON": 1}
    assert probes.count_true_values(manifest, texts, ["Did Ngozi Okafor write?"]) == {}
    assert [call[:2] for call in anonymization.audited()[known:]] == [("evaluation", "TRUE_VALUES")] * 2


def test_too_many_characters_are_refused(probes: StoredProbes, manifest: Ref) -> None:
    with pytest.raises(InvalidArgument) as refused:
        probes.count_true_values(manifest, ["x" * 90_000] * 25, [])
    assert refused.value.reason == "TOO_LONG"


@pytest.mark.parametrize("service", ["inference", "synthetic", "registry", "console"])
def test_no_other_service_may_count(
    store: MemoryStore, anonymization: Anonymization, manifest: Ref, service: str
) -> None:
    with pytest.raises(PermissionDenied):
        StoredProbes(store, anonymization.channel(service)).count_true_values(manifest, ["Ngozi Okafor"], [])


def test_a_service_that_does_not_answer_is_unavailable(store: MemoryStore, manifest: Ref) -> None:
    with pytest.raises(Unavailable):
        StoredProbes(store, open_channel("127.0.0.1:1", lambda: "tlr_evaluation")).count_true_values(
            manifest, ["x"], []
        )
