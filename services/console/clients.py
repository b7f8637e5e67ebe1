"""The services over gRPC: their stubs, and how long calls may take. Tests serve fakes of the services."""

from collections.abc import Mapping

import grpc
from grpc_health.v1.health_pb2_grpc import HealthStub

from services.console.settings import Settings
from tailor.api.anonymization.v1.replaced_pb2_grpc import ReplacedServiceStub
from tailor.api.anonymization.v1.review_pb2_grpc import ReviewServiceStub
from tailor.api.evaluation.v1.evaluation_pb2_grpc import EvaluationServiceStub
from tailor.api.inference.v1.inference_pb2_grpc import InferenceServiceStub
from tailor.api.ingestion.v1.ingestion_pb2_grpc import IngestionServiceStub
from tailor.api.ingestion.v1.replay_pb2_grpc import ReplayServiceStub
from tailor.api.registry.v1.judging_pb2_grpc import JudgingServiceStub
from tailor.api.registry.v1.panel_pb2_grpc import PanelServiceStub
from tailor.api.registry.v1.people_pb2_grpc import PeopleServiceStub
from tailor.api.registry.v1.registry_pb2_grpc import RegistryServiceStub
from tailor.api.synthetic.v1.synthesis_pb2_grpc import SynthesisServiceStub
from tailor.api.synthetic.v1.synthetic_pb2_grpc import SyntheticServiceStub
from tailor.api.training.v1.training_pb2_grpc import TrainingServiceStub
from tailor.rpc.channel import service_channel, with_deadlines

# Of reads and short writes: all methods that SECONDS does not name.
DEFAULT_SECONDS = 4.0
COUNTS = (
    "CompareEvaluations", "CountNearDuplicates", "GetAudit", "GetLeaderboard", "GetReplaced", "GetResidualReport",
    "ListRareCombinations", "ListReplaced", "ListRows", "ProposeGuidelines", "SignStatement",
)  # fmt: skip
WRITES = (
    "AdmitOrigin", "ApproveAdapter", "ApproveRun", "CancelRun", "CreateKey", "CreateRun", "CreateSpecialist", "DeclineAdapter",
    "DeleteSpecialist", "Evaluate", "PinEntry", "PlanRun", "Promote", "RecordJudgement", "ReviewSamples", "RevokeKey", "Rollback",
    "StartCanary", "StopCanary", "UpdateSpecialist",
)  # fmt: skip
SECONDS: Mapping[str, float] = {
    "Check": 1.5,
    **dict.fromkeys(COUNTS, 15.0),
    # Anonymization processes the comment of a judgement, or the reason of a decision, first.
    **dict.fromkeys(WRITES, 30.0),
    # Waits until the policy has reached ingestion.
    "StartReplay": 15.0,
    # The text passes the barrier, and the registry learns of the draft.
    "EditDraft": 40.0,
    # Builds what applies a new policy.
    "DecideReplaced": 60.0,
    # Reads the size of every document.
    "DrawSample": 120.0,
    "StreamGenerate": 180.0,
    "RegenerateDraft": 180.0,
    "DrawPrompt": 220.0,
    # The browser reconnects afterwards.
    "WatchRun": 3600.0,
}


class Services:
    """The stubs of the services that the console calls. Every call has a deadline, and may raise a TailorError."""

    def __init__(self, channels: Mapping[str, grpc.Channel]) -> None:
        """`channels` has one per service, by its name."""
        self.registry = RegistryServiceStub(channels["registry"])
        self.judging = JudgingServiceStub(channels["registry"])
        self.panel = PanelServiceStub(channels["registry"])
        self.people = PeopleServiceStub(channels["registry"])
        self.training = TrainingServiceStub(channels["training"])
        self.synthetic = SyntheticServiceStub(channels["synthetic"])
        self.syntheses = SynthesisServiceStub(channels["synthetic"])
        self.evaluation = EvaluationServiceStub(channels["evaluation"])
        self.inference = InferenceServiceStub(channels["inference"])
        self.ingestion = IngestionServiceStub(channels["ingestion"])
        self.replays = ReplayServiceStub(channels["ingestion"])
        self.review = ReviewServiceStub(channels["anonymization"])
        self.replaced = ReplacedServiceStub(channels["anonymization"])
        self.health = {name: HealthStub(channel) for name, channel in channels.items()}


def open_channels(settings: Settings) -> dict[str, grpc.Channel]:
    """The channels of the services by name, at the addresses of the settings."""
    addresses = {
        "ingestion": settings.ingestion_address,
        "anonymization": settings.anonymization_address,
        "synthetic": settings.synthetic_address,
        "training": settings.training_address,
        "evaluation": settings.evaluation_address,
        "registry": settings.registry_address,
        "inference": settings.inference_address,
    }
    return {name: service_channel(settings, name, address, service="console") for name, address in addresses.items()}


def connect(channels: Mapping[str, grpc.Channel]) -> Services:
    """The services behind their channels."""
    limited = {name: with_deadlines(channel, name, SECONDS, DEFAULT_SECONDS) for name, channel in channels.items()}
    return Services(limited)
