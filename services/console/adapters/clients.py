"""The services over gRPC. Every call has a deadline; what fails is a TailorError."""

from datetime import UTC, datetime, timedelta

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.console.adapters import convert
from services.console.adapters.audit import AuditClient
from services.console.adapters.calls import LIST_SIZE, READ_SECONDS, RpcStream
from services.console.adapters.training import TrainingClient
from services.console.domain import Judgement, KeyTerms, Question, Services, Visitor
from services.console.settings import Settings
from services.console.views import (
    Adapter,
    Dataset,
    Document,
    Erasure,
    Evaluation,
    Flow,
    KeptText,
    Key,
    NewKey,
    Page,
    Piece,
    Rejection,
    Served,
    Serving,
    Specialist,
    Trace,
)
from tailor.api.common.v1 import common_pb2
from tailor.api.evaluation.v1 import evaluation_pb2, evaluation_pb2_grpc
from tailor.api.events.v1 import drafts_pb2
from tailor.api.inference.v1 import inference_pb2, inference_pb2_grpc
from tailor.api.registry.v1 import registry_pb2, registry_pb2_grpc
from tailor.rpc.channel import service_channel, wire_errors
from tailor.rpc.keys import RegistryKeys

HEALTH_SECONDS = 1.5
WRITE_SECONDS = 30  # a judgement's comment passes the barrier first
ANSWER_SECONDS = 180


class RegistryClient:
    """The registry."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = registry_pb2_grpc.RegistryServiceStub(channel)
        self._keys = RegistryKeys(channel)

    def flow(self) -> Flow:
        """The counts."""
        with wire_errors("registry"):
            return convert.flow(self._stub.GetFlow(registry_pb2.GetFlowRequest(), timeout=READ_SECONDS))

    def documents(self, token: str, specialist: str, size: int) -> Page[Document | Rejection]:
        """A page of documents; without a specialist the rejected submissions come after them."""
        request = registry_pb2.ListDocumentsRequest(
            specialist=specialist, page_size=size, page_token=token, include_rejected=not specialist
        )
        with wire_errors("registry"):
            answer = self._stub.ListDocuments(request, timeout=READ_SECONDS)
        return Page(tuple(map(convert.catalogued, answer.documents)), answer.next_page_token)

    def datasets(self, token: str) -> Page[Dataset]:
        """A page of datasets."""
        request = registry_pb2.ListDatasetsRequest(page_token=token, page_size=LIST_SIZE)
        with wire_errors("registry"):
            answer = self._stub.ListDatasets(request, timeout=READ_SECONDS)
        return Page(tuple(map(convert.dataset, answer.datasets)), answer.next_page_token)

    def adapters(self, token: str) -> Page[Adapter]:
        """A page of adapters."""
        request = registry_pb2.ListAdaptersRequest(page_token=token, page_size=LIST_SIZE)
        with wire_errors("registry"):
            answer = self._stub.ListAdapters(request, timeout=READ_SECONDS)
        return Page(tuple(map(convert.adapter, answer.adapters)), answer.next_page_token)

    def specialists(self, token: str) -> Page[Specialist]:
        """A page of specialists."""
        request = registry_pb2.ListSpecialistsRequest(page_token=token, page_size=LIST_SIZE)
        with wire_errors("registry"):
            answer = self._stub.ListSpecialists(request, timeout=READ_SECONDS)
        return Page(tuple(map(convert.specialist, answer.specialists)), answer.next_page_token)

    def promote(self, specialist: str, adapter_digest: str, expected_generation: int) -> Serving:
        """Make an adapter serve."""
        request = registry_pb2.PromoteRequest(
            specialist=specialist, adapter_digest=adapter_digest, expected_generation=expected_generation
        )
        with wire_errors("registry"):
            return convert.decided(self._stub.Promote(request, timeout=WRITE_SECONDS).serving)

    def roll_back(self, specialist: str, expected_generation: int) -> Serving:
        """Make the previous adapter serve again."""
        request = registry_pb2.RollbackRequest(specialist=specialist, expected_generation=expected_generation)
        with wire_errors("registry"):
            return convert.decided(self._stub.Rollback(request, timeout=WRITE_SECONDS).serving)

    def start_canary(self, specialist: str, adapter_digest: str, expected_generation: int) -> Serving:
        """Let a share of the callers get an adapter, by the specialist's own rules."""
        request = registry_pb2.StartCanaryRequest(
            specialist=specialist, adapter_digest=adapter_digest, expected_generation=expected_generation
        )
        with wire_errors("registry"):
            return convert.decided(self._stub.StartCanary(request, timeout=WRITE_SECONDS).serving)

    def stop_canary(self, specialist: str, expected_generation: int) -> Serving:
        """Take a canary back."""
        request = registry_pb2.StopCanaryRequest(specialist=specialist, expected_generation=expected_generation)
        with wire_errors("registry"):
            return convert.decided(self._stub.StopCanary(request, timeout=WRITE_SECONDS).serving)

    def trace(self, draft_id: str) -> Trace:
        """Where a draft came from."""
        with wire_errors("registry"):
            return convert.trace(self._stub.Trace(registry_pb2.TraceRequest(draft_id=draft_id), timeout=READ_SECONDS))

    def record_judgement(self, judgement: Judgement, request_id: str) -> str:
        """Keep a judgement; its id."""
        request = registry_pb2.RecordJudgementRequest(
            ranking=judgement.ranking,
            rubric=drafts_pb2.Rubric(
                accuracy=judgement.accuracy, style=judgement.style, usefulness=judgement.usefulness
            ),
            comment=judgement.comment,
            request_id=request_id,
        )
        with wire_errors("registry"):
            return self._stub.RecordJudgement(request, timeout=WRITE_SECONDS).judgement.judgement_id

    def keys(self, token: str) -> Page[Key]:
        """A page of API keys."""
        request = registry_pb2.ListKeysRequest(page_token=token, page_size=LIST_SIZE)
        with wire_errors("registry"):
            answer = self._stub.ListKeys(request, timeout=READ_SECONDS)
        return Page(tuple(map(convert.key, answer.keys)), answer.next_page_token)

    def create_key(self, terms: KeyTerms) -> NewKey:
        """Make a key."""
        request = registry_pb2.CreateKeyRequest(
            name=terms.name,
            role=common_pb2.Role.Value(f"ROLE_{terms.role.name}"),
            specialists=terms.specialists,
            methods=terms.methods,
            calls_per_minute=terms.calls_per_minute,
        )
        if terms.days:
            request.expire_time.FromDatetime(datetime.now(UTC) + timedelta(days=terms.days))
        with wire_errors("registry"):
            answer = self._stub.CreateKey(request, timeout=WRITE_SECONDS)
        return NewKey(convert.key(answer.key), answer.secret)

    def revoke_key(self, key_id: str) -> None:
        """End a key."""
        with wire_errors("registry"):
            self._stub.RevokeKey(registry_pb2.RevokeKeyRequest(key_id=key_id), timeout=WRITE_SECONDS)

    def erasures(self, token: str) -> Page[Erasure]:
        """A page of erasures."""
        request = registry_pb2.ListErasuresRequest(page_token=token, page_size=LIST_SIZE)
        with wire_errors("registry"):
            answer = self._stub.ListErasures(request, timeout=READ_SECONDS)
        return Page(tuple(map(convert.erasure, answer.erasures)), answer.next_page_token)

    def verify_key(self, secret_sha256: str) -> Visitor:
        """The holder of an API key; NotFound for an unknown or revoked one."""
        return convert.visitor(self._keys.verify(secret_sha256), secret_sha256)


class EvaluationClient:
    """Evaluation."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = evaluation_pb2_grpc.EvaluationServiceStub(channel)

    def evaluation(self, adapter_digest: str) -> Evaluation:
        """The newest evaluation of an adapter."""
        request = evaluation_pb2.GetEvaluationRequest(adapter_digest=adapter_digest)
        with wire_errors("evaluation"):
            return convert.evaluation(self._stub.GetEvaluation(request, timeout=READ_SECONDS))


class InferenceClient:
    """Inference."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = inference_pb2_grpc.InferenceServiceStub(channel)

    def specialists(self) -> tuple[Served, ...]:
        """What it answers for, the base included."""
        with wire_errors("inference"):
            answer = self._stub.ListSpecialists(inference_pb2.ListSpecialistsRequest(), timeout=READ_SECONDS)
        return tuple(map(convert.served, answer.specialists))

    def ask(self, question: Question) -> RpcStream[Piece]:
        """The answer as it comes."""
        sampling = inference_pb2.Sampling(temperature=question.temperature, max_tokens=question.max_tokens)
        request = inference_pb2.GenerateRequest(model=question.model, prompt=question.prompt, sampling=sampling)
        call = self._stub.StreamGenerate(inference_pb2.StreamGenerateRequest(request=request), timeout=ANSWER_SECONDS)
        return RpcStream("inference", call, convert.piece)

    def draft(self, draft_id: str) -> KeptText:
        """What is kept of a draft's words."""
        with wire_errors("inference"):
            request = inference_pb2.GetDraftRequest(draft_id=draft_id)
            return convert.kept_text(self._stub.GetDraft(request, timeout=READ_SECONDS))


class HealthClient:
    """How the services are, by the gRPC health protocol."""

    def __init__(self, channels: dict[str, grpc.Channel]) -> None:
        self._stubs = {name: health_pb2_grpc.HealthStub(channel) for name, channel in channels.items()}

    def check(self, service: str) -> bool:
        """True if the service answers and serves."""
        try:
            answer = self._stubs[service].Check(health_pb2.HealthCheckRequest(), timeout=HEALTH_SECONDS)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def connect(settings: Settings) -> tuple[Services, list[grpc.Channel]]:
    """The services at their addresses, and the channels to close in the end."""
    addresses = {
        "ingestion": settings.ingestion_address,
        "anonymization": settings.anonymization_address,
        "synthetic": settings.synthetic_address,
        "training": settings.training_address,
        "evaluation": settings.evaluation_address,
        "registry": settings.registry_address,
        "inference": settings.inference_address,
    }
    channels = {
        name: service_channel(settings, name, address, service="console") for name, address in addresses.items()
    }
    services = Services(
        registry=RegistryClient(channels["registry"]),
        training=TrainingClient(channels["training"]),
        evaluation=EvaluationClient(channels["evaluation"]),
        inference=InferenceClient(channels["inference"]),
        health=HealthClient(channels),
        auditing=AuditClient(channels["registry"], channels["synthetic"]),
    )
    return services, list(channels.values())
