"""What the console needs from others: the services' stubs, and the OpenID provider. Tests serve fakes of them."""

from collections.abc import Mapping
from typing import Protocol

import grpc
from grpc_health.v1.health_pb2_grpc import HealthStub

from services.console.domain import ProviderIdentity, SignInAttempt
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


class OpenIdProvider(Protocol):
    """The company's OpenID provider. Both calls may raise Unavailable (PROVIDER_UNAVAILABLE)."""

    def authorize(self, attempt: SignInAttempt) -> str:
        """The provider's address at which a browser's user signs in."""
        ...

    def identify(self, attempt: SignInAttempt, code: str) -> ProviderIdentity:
        """Redeem the code with which the user came back.

        Raises Unauthenticated (INVALID_SIGN_IN) for a code or a token that is not valid for this attempt."""
        ...


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
