"""A console over services in memory, and a browser that is signed in to it."""

import hashlib
import re
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import grpc
import httpx
from fastapi.testclient import TestClient
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from pydantic import SecretStr

from services.console.clients import Services, connect
from services.console.domain import Role, Visitor
from services.console.handlers import SERVICES
from services.console.settings import Settings
from services.console.web.app import create_app
from tailor.api.anonymization.v1 import replaced_pb2_grpc, review_pb2_grpc
from tailor.api.common.v1 import common_pb2
from tailor.api.evaluation.v1 import evaluation_pb2_grpc
from tailor.api.inference.v1 import inference_pb2_grpc
from tailor.api.ingestion.v1 import ingestion_pb2, ingestion_pb2_grpc, replay_pb2, replay_pb2_grpc
from tailor.api.registry.v1 import judging_pb2_grpc, panel_pb2_grpc, people_pb2_grpc, registry_pb2_grpc
from tailor.api.synthetic.v1 import synthesis_pb2_grpc, synthetic_pb2_grpc
from tailor.api.training.v1 import training_pb2_grpc
from tailor.errors import FailedPrecondition, NotFound, Reason, TailorError
from tailor.rpc.status import to_status
from tests.fakes.replaced import FakeReplaced
from tests.fakes.review import FakeReview
from tests.unit.console.fake_models import FakeEvaluation, FakeInference, FakeTraining
from tests.unit.console.fake_registry import FakeRegistry
from tests.unit.console.fake_rows import FakeSyntheses, FakeSynthetic
from tests.unit.console.judging_fakes import FakeJudgingQueue
from tests.unit.console.messages import KEY
from tests.unit.console.panel_fakes import FakePanelReader
from tests.unit.console.people_fakes import FakePeople

PASSWORD = "correct horse battery"


class Refusals(grpc.ServerInterceptor):  # type: ignore[type-arg]
    """Ends a call with the TailorError that its fake raises, as a real service does. Keeps the queries of lists."""

    def __init__(self) -> None:
        self.queries: list[common_pb2.ListQuery] = []

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = continuation(handler_call_details)
        if handler is None:
            return None

        def answer(request: Any, context: Any) -> Any:
            if hasattr(request, "query") and isinstance(request.query, common_pb2.ListQuery):
                self.queries.append(request.query)
            try:
                return handler.unary_unary(request, context)
            except TailorError as error:
                context.abort_with_status(rpc_status.to_status(to_status(error)))

        def stream(request: Any, context: Any) -> Any:
            try:
                yield from handler.unary_stream(request, context)
            except TailorError as error:
                context.abort_with_status(rpc_status.to_status(to_status(error)))

        parse, write = handler.request_deserializer, handler.response_serializer
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(stream, parse, write)
        return grpc.unary_unary_rpc_method_handler(answer, parse, write)


@dataclass
class FakeHealth(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # the library has no types
    """Health by the service that a channel is for, which its user agent names."""

    unhealthy: set[str]

    def Check(self, request: Any, context: Any) -> Any:
        service = dict(context.invocation_metadata())["user-agent"].split()[0]
        serving = service not in self.unhealthy
        return health_pb2.HealthCheckResponse(status="SERVING" if serving else "NOT_SERVING")


@dataclass
class FakeIngestion(ingestion_pb2_grpc.IngestionServiceServicer, replay_pb2_grpc.ReplayServiceServicer):
    """Submissions by their publishers' ids, and replays as (barrier digest, key)."""

    submissions: dict[str, list[ingestion_pb2.Submission]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    replays: list[tuple[str, str]] = field(default_factory=list)
    replay_runs: bool = False

    def GetSubmission(self, request: Any, context: Any) -> Any:
        self.asked.append((request.external_id, request.key_id))
        if request.external_id not in self.submissions:
            raise NotFound(Reason.UNKNOWN_DOCUMENT, "Nothing was published under this id.")
        return ingestion_pb2.GetSubmissionResponse(submissions=self.submissions[request.external_id])

    def StartReplay(self, request: Any, context: Any) -> Any:
        if self.replay_runs:
            raise FailedPrecondition(Reason.REPLAY_RUNNING, "Another replay runs.")
        self.replays.append((request.barrier_digest, request.requester))
        return replay_pb2.StartReplayResponse()


@dataclass
class World:
    """A console over fake services, which one gRPC server serves."""

    registry: FakeRegistry = field(default_factory=FakeRegistry)
    training: FakeTraining = field(default_factory=FakeTraining)
    evaluation: FakeEvaluation = field(default_factory=FakeEvaluation)
    inference: FakeInference = field(default_factory=FakeInference)
    ingestion: FakeIngestion = field(default_factory=FakeIngestion)
    synthetic: FakeSynthetic = field(default_factory=FakeSynthetic)
    syntheses: FakeSyntheses = field(default_factory=FakeSyntheses)
    review: FakeReview = field(default_factory=FakeReview)
    replaced: FakeReplaced = field(default_factory=FakeReplaced)
    judging: FakeJudgingQueue = field(default_factory=FakeJudgingQueue)
    panel: FakePanelReader = field(default_factory=FakePanelReader)
    unhealthy: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.people, self.refusals = FakePeople(self.registry), Refusals()

    @cached_property
    def channels(self) -> dict[str, grpc.Channel]:
        """Channels to the fakes by service. The server stops when nothing refers to anonymization's any more."""
        server = grpc.server(ThreadPoolExecutor(max_workers=32), interceptors=[self.refusals])
        registry_pb2_grpc.add_RegistryServiceServicer_to_server(self.registry, server)
        judging_pb2_grpc.add_JudgingServiceServicer_to_server(self.judging, server)
        panel_pb2_grpc.add_PanelServiceServicer_to_server(self.panel, server)
        people_pb2_grpc.add_PeopleServiceServicer_to_server(self.people, server)
        training_pb2_grpc.add_TrainingServiceServicer_to_server(self.training, server)
        synthetic_pb2_grpc.add_SyntheticServiceServicer_to_server(self.synthetic, server)
        synthesis_pb2_grpc.add_SynthesisServiceServicer_to_server(self.syntheses, server)
        evaluation_pb2_grpc.add_EvaluationServiceServicer_to_server(self.evaluation, server)
        inference_pb2_grpc.add_InferenceServiceServicer_to_server(self.inference, server)
        ingestion_pb2_grpc.add_IngestionServiceServicer_to_server(self.ingestion, server)
        replay_pb2_grpc.add_ReplayServiceServicer_to_server(self.ingestion, server)
        review_pb2_grpc.add_ReviewServiceServicer_to_server(self.review, server)
        replaced_pb2_grpc.add_ReplacedServiceServicer_to_server(self.replaced, server)
        health_pb2_grpc.add_HealthServicer_to_server(FakeHealth(self.unhealthy), server)
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        options = {name: [("grpc.primary_user_agent", name)] for name in SERVICES}
        channels = {name: grpc.insecure_channel(address, options[name]) for name in SERVICES}
        weakref.finalize(channels["anonymization"], server.stop, None)
        return channels

    @cached_property
    def services(self) -> Services:
        return connect(self.channels)

    def browser(self, base_url: str = "http://testserver") -> TestClient:
        app = create_app(settings(), self.services)
        return TestClient(app, base_url=base_url, follow_redirects=False, raise_server_exceptions=False)

    def key(self, role: Role, *specialists: str) -> str:
        """The secret of a new API key."""
        secret = f"tlr_{role.value}_{len(self.registry.visitors)}"
        digest = hashlib.sha256(secret.encode()).hexdigest()
        self.registry.visitors[digest] = Visitor(f"{role.value} key", role, frozenset(specialists), KEY)
        return secret

    def signed_in(self, role: Role = Role.OPERATOR, *specialists: str) -> TestClient:
        """A browser that is signed in with this role."""
        browser = self.browser()
        sign_in(browser, self.key(role, *specialists))
        return browser


def settings() -> Settings:
    return Settings(
        password=SecretStr(PASSWORD),
        session_secret=SecretStr("s" * 40),
        identity_key_file=Path("none"),
        trust_file=Path("none"),
    )


def csrf(browser: TestClient | httpx.Client, path: str = "/login") -> str:
    """The CSRF token of a page's forms."""
    match = re.search(r'data-csrf="([^"]+)"', browser.get(path).text)
    assert match
    return match.group(1)


def sign_in(browser: TestClient | httpx.Client, secret: str) -> None:
    """Sign in, and send the session's CSRF token with every later request."""
    answer = browser.post("/login", data={"secret": secret, "csrf": csrf(browser)})
    assert answer.status_code == 303, answer.text
    browser.headers["x-csrf-token"] = csrf(browser)
