"""The whole command line against fake services in this process."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner

from tailor.api.anonymization.v1 import (
    anonymization_pb2_grpc,
    policy_pb2_grpc,
    replaced_pb2_grpc,
    review_pb2_grpc,
    subject_pb2_grpc,
)
from tailor.api.evaluation.v1 import evaluation_pb2_grpc
from tailor.api.events.v1 import operations_pb2_grpc
from tailor.api.inference.v1 import inference_pb2_grpc
from tailor.api.ingestion.v1 import ingestion_pb2_grpc, replay_pb2_grpc
from tailor.api.registry.v1 import (
    feedback_pb2_grpc,
    lineage_pb2_grpc,
    objects_pb2_grpc,
    outcomes_pb2_grpc,
    panel_pb2_grpc,
    people_pb2_grpc,
    registry_pb2_grpc,
    reports_pb2_grpc,
)
from tailor.api.synthetic.v1 import imports_pb2_grpc, synthesis_pb2_grpc, synthetic_pb2_grpc
from tailor.api.training.v1 import training_pb2_grpc
from tailor.cli.connections import Connections, Endpoints
from tailor.cli.main import app
from tests.fakes.anonymization import FakeAnonymization
from tests.fakes.evaluation import FakeEvaluation
from tests.fakes.events import FakeEvents
from tests.fakes.feedback import FakeFeedback, FakeOutcomes, FakePanel
from tests.fakes.inference import FakeInference
from tests.fakes.ingestion import FakeIngestion
from tests.fakes.objects import FakeObjects
from tests.fakes.people import FakePeople
from tests.fakes.policies import FakeLineage, FakePolicies, FakeReplays, FakeSubjects
from tests.fakes.registry import FakeRegistry
from tests.fakes.replaced import FakeReplaced
from tests.fakes.reports import FakeReports
from tests.fakes.review import FakeReview
from tests.fakes.serving import serving
from tests.fakes.synthetic import FakeSynthesis, FakeSynthetic
from tests.fakes.training import FakeTraining


@dataclass
class Services:
    """The fake services and their addresses."""

    registry: FakeRegistry = field(default_factory=FakeRegistry)
    training: FakeTraining = field(default_factory=FakeTraining)
    synthetic: FakeSynthetic = field(default_factory=FakeSynthetic)
    evaluation: FakeEvaluation = field(default_factory=FakeEvaluation)
    inference: FakeInference = field(default_factory=FakeInference)
    ingestion: FakeIngestion = field(default_factory=FakeIngestion)
    anonymization: FakeAnonymization = field(default_factory=FakeAnonymization)
    review: FakeReview = field(default_factory=FakeReview)
    replaced: FakeReplaced = field(default_factory=FakeReplaced)
    synthesis: FakeSynthesis = field(default_factory=FakeSynthesis)
    events: FakeEvents = field(default_factory=FakeEvents)  # training's
    policies: FakePolicies = field(default_factory=FakePolicies)
    subjects: FakeSubjects = field(default_factory=FakeSubjects)
    replays: FakeReplays = field(default_factory=FakeReplays)
    lineage: FakeLineage = field(default_factory=FakeLineage)
    feedback: FakeFeedback = field(default_factory=FakeFeedback)
    outcomes: FakeOutcomes = field(default_factory=FakeOutcomes)
    reports: FakeReports = field(default_factory=FakeReports)
    panel: FakePanel = field(default_factory=FakePanel)
    people: FakePeople = field(default_factory=FakePeople)
    objects: FakeObjects = field(default_factory=FakeObjects)
    addresses: dict[str, str] = field(default_factory=dict)


@dataclass
class Outcome:
    """The result of a command."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Standard output, parsed as JSON."""
        return json.loads(self.out)


Tailor = Callable[..., Outcome]


@pytest.fixture
def services() -> Iterator[Services]:
    fakes = Services()

    def add_synthetic(servicer: FakeSynthetic, server: grpc.Server) -> None:
        synthetic_pb2_grpc.add_SyntheticServiceServicer_to_server(servicer, server)
        imports_pb2_grpc.add_ImportServiceServicer_to_server(servicer.imports, server)
        synthesis_pb2_grpc.add_SynthesisServiceServicer_to_server(fakes.synthesis, server)

    def add_training(servicer: FakeTraining, server: grpc.Server) -> None:
        training_pb2_grpc.add_TrainingServiceServicer_to_server(servicer, server)
        operations_pb2_grpc.add_EventServiceServicer_to_server(fakes.events, server)

    def add_anonymization(servicer: FakeAnonymization, server: grpc.Server) -> None:
        anonymization_pb2_grpc.add_AnonymizationServiceServicer_to_server(servicer, server)
        policy_pb2_grpc.add_PolicyServiceServicer_to_server(fakes.policies, server)
        subject_pb2_grpc.add_SubjectServiceServicer_to_server(fakes.subjects, server)
        review_pb2_grpc.add_ReviewServiceServicer_to_server(fakes.review, server)
        replaced_pb2_grpc.add_ReplacedServiceServicer_to_server(fakes.replaced, server)

    def add_ingestion(servicer: FakeIngestion, server: grpc.Server) -> None:
        ingestion_pb2_grpc.add_IngestionServiceServicer_to_server(servicer, server)
        replay_pb2_grpc.add_ReplayServiceServicer_to_server(fakes.replays, server)

    def add_registry(servicer: FakeRegistry, server: grpc.Server) -> None:
        registry_pb2_grpc.add_RegistryServiceServicer_to_server(servicer, server)
        lineage_pb2_grpc.add_LineageServiceServicer_to_server(fakes.lineage, server)
        feedback_pb2_grpc.add_FeedbackServiceServicer_to_server(fakes.feedback, server)
        outcomes_pb2_grpc.add_OutcomeServiceServicer_to_server(fakes.outcomes, server)
        reports_pb2_grpc.add_ReportServiceServicer_to_server(fakes.reports, server)
        panel_pb2_grpc.add_PanelServiceServicer_to_server(fakes.panel, server)
        people_pb2_grpc.add_PeopleServiceServicer_to_server(fakes.people, server)
        objects_pb2_grpc.add_ObjectServiceServicer_to_server(fakes.objects, server)

    adders: dict[str, Callable[[Any, grpc.Server], None]] = {
        "registry": add_registry,
        "training": add_training,
        "synthetic": add_synthetic,
        "evaluation": evaluation_pb2_grpc.add_EvaluationServiceServicer_to_server,
        "inference": inference_pb2_grpc.add_InferenceServiceServicer_to_server,
        "ingestion": add_ingestion,
        "anonymization": add_anonymization,
    }
    with ExitStack() as stack:
        for name, add in adders.items():
            fakes.addresses[name] = stack.enter_context(serving(add, getattr(fakes, name)))
        yield fakes


@pytest.fixture
def connections(services: Services, tmp_path: Path) -> Iterator[Connections]:
    with closing(Connections(Endpoints(tmp_path, "tlr_test", services.addresses))) as connections:
        yield connections


@pytest.fixture
def tailor(services: Services, tmp_path: Path) -> Tailor:
    """Run `tailor ARGUMENTS...`."""
    environment = {f"TAILOR_{name.upper()}_ADDRESS": address for name, address in services.addresses.items()}
    environment |= {"TAILOR_API_KEY": "tlr_test", "TAILOR_STATE_DIR": str(tmp_path / "state"), "COLUMNS": "200"}

    def run(*arguments: str) -> Outcome:
        result = CliRunner().invoke(app, list(arguments), env=environment)
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return run
