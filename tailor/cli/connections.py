"""Connections to services and Kafka: by options and environment, or else to the embedded stack of the state directory."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import grpc

from tailor.api.anonymization.v1 import (
    anonymization_pb2_grpc,
    policy_pb2_grpc,
    replaced_pb2_grpc,
    review_pb2_grpc,
    subject_pb2_grpc,
)
from tailor.api.evaluation.v1 import evaluation_pb2_grpc
from tailor.api.events.v1 import operations_pb2_grpc
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
from tailor.cli.calls import Calls
from tailor.client import TailorClient, Tls
from tailor.errors import FailedPrecondition, InvalidArgument, Reason, Unauthenticated, Unavailable
from tailor.events.topics import load_topics
from tailor.rpc.channel import open_channel
from tailor.settings import KafkaSettings

if TYPE_CHECKING:
    from tailor.local.stack import Connection

T = TypeVar("T")

SERVICES = ("ingestion", "anonymization", "synthetic", "training", "evaluation", "registry", "inference")


@dataclass(frozen=True)
class Endpoints:
    """The addresses and credentials from options and environment; absent ones are empty."""

    state_dir: Path
    api_key: str = ""
    addresses: Mapping[str, str] = field(default_factory=dict)
    kafka_bootstrap_servers: str = ""
    tls_ca_file: Path | None = None
    kafka_user_files: Path | None = None


class _Stub(Generic[T]):
    """A stub of a service, on the channel that all of its stubs share."""

    def __init__(self, service: str, stub: Callable[[grpc.Channel], T]) -> None:
        self._service = service
        self._stub = stub

    def __get__(self, connections: "Connections", owner: object) -> T:
        return self._stub(grpc.intercept_channel(connections.channel(self._service), Calls(self._service)))


class Connections:
    """Opens each channel once, when it is first used."""

    registry = _Stub("registry", registry_pb2_grpc.RegistryServiceStub)
    anonymization = _Stub("anonymization", anonymization_pb2_grpc.AnonymizationServiceStub)
    review = _Stub("anonymization", review_pb2_grpc.ReviewServiceStub)
    replaced = _Stub("anonymization", replaced_pb2_grpc.ReplacedServiceStub)
    policies = _Stub("anonymization", policy_pb2_grpc.PolicyServiceStub)
    subjects = _Stub("anonymization", subject_pb2_grpc.SubjectServiceStub)
    replays = _Stub("ingestion", replay_pb2_grpc.ReplayServiceStub)
    lineage = _Stub("registry", lineage_pb2_grpc.LineageServiceStub)
    objects = _Stub("registry", objects_pb2_grpc.ObjectServiceStub)
    feedback = _Stub("registry", feedback_pb2_grpc.FeedbackServiceStub)
    outcomes = _Stub("registry", outcomes_pb2_grpc.OutcomeServiceStub)
    panel = _Stub("registry", panel_pb2_grpc.PanelServiceStub)
    people = _Stub("registry", people_pb2_grpc.PeopleServiceStub)
    reports = _Stub("registry", reports_pb2_grpc.ReportServiceStub)
    training = _Stub("training", training_pb2_grpc.TrainingServiceStub)
    synthetic = _Stub("synthetic", synthetic_pb2_grpc.SyntheticServiceStub)
    imports = _Stub("synthetic", imports_pb2_grpc.ImportServiceStub)
    syntheses = _Stub("synthetic", synthesis_pb2_grpc.SynthesisServiceStub)
    evaluation = _Stub("evaluation", evaluation_pb2_grpc.EvaluationServiceStub)
    ingestion = _Stub("ingestion", ingestion_pb2_grpc.IngestionServiceStub)

    def __init__(self, endpoints: Endpoints) -> None:
        self.endpoints = endpoints
        self._channels: dict[str, grpc.Channel] = {}
        self._embedded: Connection | None = None

    @property
    def state_dir(self) -> Path:
        """The state directory of the embedded stack."""
        return self.endpoints.state_dir

    @property
    def named(self) -> dict[str, str]:
        """The addresses from options and environment, by service."""
        return {service: address for service, address in self.endpoints.addresses.items() if address}

    def address(self, service: str) -> str:
        """HOST:PORT of a service."""
        return self.named.get(service) or self._stack().service_addresses[service]

    def api_key(self) -> str:
        """The caller's key, or else the stack's first operator key. Raises Unauthenticated if there is neither."""
        if self.endpoints.api_key:
            return self.endpoints.api_key
        if self.named:
            raise Unauthenticated(Reason.NO_API_KEY, "Set TAILOR_API_KEY or give --api-key.")
        try:
            return self._stack().operator_key_file.read_text(encoding="utf-8").strip()
        except OSError:
            raise Unauthenticated(
                Reason.NO_API_KEY, "The stack's operator key cannot be read; set TAILOR_API_KEY or give --api-key."
            ) from None

    def tls(self) -> Tls | None:
        """TLS if a CA is given, else None. Raises InvalidArgument if its file cannot be read."""
        path = self.endpoints.tls_ca_file
        try:
            return Tls(path.read_bytes()) if path else None
        except OSError:
            raise InvalidArgument(
                Reason.INVALID_CA_FILE,
                f"{path} cannot be read; --tls-ca-file or TAILOR_TLS_CA_FILE must name a PEM file.",
            ) from None

    def channel(self, service: str) -> grpc.Channel:
        if service not in self._channels:
            self._channels[service] = open_channel(self.address(service), self.api_key(), self.tls())
        return self._channels[service]

    def events(self, service: str) -> operations_pb2_grpc.EventServiceStub:
        """The events that a service could not handle or send. Raises InvalidArgument (UNKNOWN_SERVICE)."""
        if service not in SERVICES:
            raise InvalidArgument(
                Reason.UNKNOWN_SERVICE, f"Unknown service {service}. Services: {', '.join(SERVICES)}."
            )
        return operations_pb2_grpc.EventServiceStub(grpc.intercept_channel(self.channel(service), Calls(service)))

    def client(self) -> TailorClient:
        """The client that callers use."""
        return TailorClient(self.address("inference"), self.api_key(), self.tls())

    def kafka_publisher(self, topic: str) -> KafkaSettings:
        """Kafka's settings for who writes a topic of outsiders; protocol and credentials come from TAILOR_KAFKA_*.

        `tailor env` names the stack's own broker with the credentials of who publishes documents: then the topic's own publisher is used.
        With `kafka_user_files`, credentials that the environment does not name come from `kafka-USER.env` there. Raises FailedPrecondition
        (KAFKA_RIGHT_MISSING) if there is no such file.
        """
        (user,) = load_topics()[topic].producers
        folder = self.endpoints.kafka_user_files
        if folder is None:
            return self._kafka(lambda place: place.publishers[user])
        file = folder / f"kafka-{user}.env"
        if not file.is_file():
            raise FailedPrecondition(
                Reason.KAFKA_RIGHT_MISSING,
                f"{file} is missing, so nothing can be written to {topic}. Ask its operator for it.",
            )
        return KafkaSettings(_env_file=file, kafka_bootstrap_servers=self.endpoints.kafka_bootstrap_servers)

    def kafka_reader(self) -> KafkaSettings:
        """Kafka's settings for who reads events, as for who writes them."""
        return self._kafka(lambda place: place.reader)

    def _kafka(self, choose: Callable[["Connection"], KafkaSettings]) -> KafkaSettings:
        named = self._named_kafka()
        if named is None:
            return choose(self._stack())
        with suppress(Unavailable):
            if self._stack().publisher.kafka_bootstrap_servers == named.kafka_bootstrap_servers:
                return choose(self._stack())
        return named

    def _named_kafka(self) -> KafkaSettings | None:
        servers = self.endpoints.kafka_bootstrap_servers
        return KafkaSettings(kafka_bootstrap_servers=servers) if servers else None

    def close(self) -> None:
        """Close all channels."""
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()

    def _stack(self) -> "Connection":
        from tailor.local.stack import connection

        try:
            self._embedded = self._embedded or connection(self.state_dir)
        except Unavailable:
            raise Unavailable(
                Reason.NO_STACK,
                f"No stack runs in {self.state_dir}. Start one with `tailor up`, or set the addresses of an installation, "
                "such as TAILOR_REGISTRY_ADDRESS.",
            ) from None
        return self._embedded
