"""The services over gRPC. Every call has a deadline; every failure is a TailorError."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import grpc

from services.console.adapters.calls import COUNT_SECONDS, LIST_SIZE, WRITE_SECONDS, RpcStream, call
from services.console.adapters.health import HealthClient
from services.console.adapters.judging import DrawClient, JudgingClient
from services.console.adapters.panel import PanelClient
from services.console.adapters.people import PeopleClient, SessionClient
from services.console.adapters.review import ReviewClient
from services.console.adapters.submissions import replay_starter, submission_finder
from services.console.adapters.training import BuildClient, RunCommandClient, TrainingClient
from services.console.domain import Judgement, KeyTerms, Page, Question, RowQuery
from services.console.ports import (
    AnswerSource,
    ApiKeys,
    CatalogueReader,
    Decisions,
    NewKey,
    Operations,
    RowSource,
    Services,
    SynthesisReader,
)
from services.console.settings import Settings
from tailor.api.common.v1 import common_pb2
from tailor.api.evaluation.v1 import evaluation_pb2, evaluation_pb2_grpc
from tailor.api.events.v1 import drafts_pb2, models_pb2
from tailor.api.inference.v1 import inference_pb2, inference_pb2_grpc
from tailor.api.registry.v1 import audit_pb2, registry_pb2, registry_pb2_grpc
from tailor.api.synthetic.v1 import synthesis_pb2, synthesis_pb2_grpc, synthetic_pb2, synthetic_pb2_grpc
from tailor.errors import NotFound, Reason
from tailor.rpc.channel import service_channel

ANSWER_SECONDS = 180
# The text passes the barrier, and the registry learns of the draft.
EDIT_SECONDS = 40
ROWS_SIZE = 20
OUTCOMES = {
    "ranked": drafts_pb2.JUDGEMENT_OUTCOME_UNSPECIFIED,
    "tie": drafts_pb2.JUDGEMENT_OUTCOME_TIE,
    "both_bad": drafts_pb2.JUDGEMENT_OUTCOME_BOTH_BAD,
}


class RegistryClient(CatalogueReader, Decisions, Operations, ApiKeys):
    """The registry."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = registry_pb2_grpc.RegistryServiceStub(channel)

    def get_flow(self) -> registry_pb2.GetFlowResponse:
        return call("registry", self._stub.GetFlow, registry_pb2.GetFlowRequest())

    def get_audit(self, specialist: str) -> audit_pb2.GetAuditResponse:
        request = audit_pb2.GetAuditRequest(specialist=specialist)
        return call("registry", self._stub.GetAudit, request, COUNT_SECONDS)

    def list_documents(
        self, token: str, specialist: str, size: int, dataset: str
    ) -> Page[registry_pb2.CatalogueDocument]:
        request = registry_pb2.ListDocumentsRequest(
            specialist=specialist, page_size=size, page_token=token, dataset=dataset
        )
        answer = call("registry", self._stub.ListDocuments, request)
        return Page(tuple(answer.documents), answer.next_page_token)

    def list_rejected(self, token: str, size: int) -> Page[registry_pb2.CatalogueDocument]:
        request = registry_pb2.ListDocumentsRequest(only_rejected=True, page_size=size, page_token=token)
        answer = call("registry", self._stub.ListDocuments, request)
        return Page(tuple(answer.documents), answer.next_page_token)

    def get_document(self, document_id: str) -> registry_pb2.CatalogueDocument:
        request = registry_pb2.ListDocumentsRequest(document_id=document_id)
        answer = call("registry", self._stub.ListDocuments, request)
        if not answer.documents:
            raise NotFound(Reason.UNKNOWN_DOCUMENT, "There is no anonymised document with this id.")
        return answer.documents[0]

    def get_dataset(self, digest: str) -> models_pb2.DatasetBuilt:
        return call("registry", self._stub.GetDataset, registry_pb2.GetDatasetRequest(digest=digest)).dataset

    def describe_dataset(self, digest: str) -> registry_pb2.GetDatasetResponse:
        return call("registry", self._stub.GetDataset, registry_pb2.GetDatasetRequest(digest=digest))

    def list_datasets(self, token: str, specialist: str = "") -> Page[models_pb2.DatasetBuilt]:
        request = registry_pb2.ListDatasetsRequest(specialist=specialist, page_token=token, page_size=LIST_SIZE)
        answer = call("registry", self._stub.ListDatasets, request)
        return Page(tuple(answer.datasets), answer.next_page_token)

    def get_adapter(self, digest: str) -> registry_pb2.CatalogueAdapter:
        return call("registry", self._stub.GetAdapter, registry_pb2.GetAdapterRequest(digest=digest)).adapter

    def list_adapters(self, token: str, specialist: str = "") -> Page[registry_pb2.CatalogueAdapter]:
        request = registry_pb2.ListAdaptersRequest(specialist=specialist, page_token=token, page_size=LIST_SIZE)
        answer = call("registry", self._stub.ListAdapters, request)
        return Page(tuple(answer.adapters), answer.next_page_token)

    def list_specialists(self, token: str) -> Page[registry_pb2.GetSpecialistResponse]:
        request = registry_pb2.ListSpecialistsRequest(page_token=token, page_size=LIST_SIZE)
        answer = call("registry", self._stub.ListSpecialists, request)
        return Page(tuple(answer.specialists), answer.next_page_token)

    def trace(self, draft_id: str) -> registry_pb2.TraceResponse:
        return call("registry", self._stub.Trace, registry_pb2.TraceRequest(draft_id=draft_id))

    def list_erasures(self, token: str) -> Page[registry_pb2.Erasure]:
        request = registry_pb2.ListErasuresRequest(page_token=token, page_size=LIST_SIZE)
        answer = call("registry", self._stub.ListErasures, request)
        return Page(tuple(answer.erasures), answer.next_page_token)

    def promote(self, specialist: str, adapter_digest: str, expected_generation: int) -> models_pb2.SpecialistServing:
        request = registry_pb2.PromoteRequest(
            specialist=specialist, adapter_digest=adapter_digest, expected_generation=expected_generation
        )
        return call("registry", self._stub.Promote, request, WRITE_SECONDS).serving

    def roll_back(self, specialist: str, expected_generation: int) -> models_pb2.SpecialistServing:
        request = registry_pb2.RollbackRequest(specialist=specialist, expected_generation=expected_generation)
        return call("registry", self._stub.Rollback, request, WRITE_SECONDS).serving

    def start_canary(
        self, specialist: str, adapter_digest: str, expected_generation: int
    ) -> models_pb2.SpecialistServing:
        request = registry_pb2.StartCanaryRequest(
            specialist=specialist, adapter_digest=adapter_digest, expected_generation=expected_generation
        )
        return call("registry", self._stub.StartCanary, request, WRITE_SECONDS).serving

    def stop_canary(self, specialist: str, expected_generation: int) -> models_pb2.SpecialistServing:
        request = registry_pb2.StopCanaryRequest(specialist=specialist, expected_generation=expected_generation)
        return call("registry", self._stub.StopCanary, request, WRITE_SECONDS).serving

    def create_specialist(
        self, definition: models_pb2.SpecialistChanged, request_id: str
    ) -> registry_pb2.CreateSpecialistResponse:
        request = registry_pb2.CreateSpecialistRequest(specialist=definition, request_id=request_id)
        return call("registry", self._stub.CreateSpecialist, request, WRITE_SECONDS)

    def update_specialist(
        self, definition: models_pb2.SpecialistChanged, *, validate_only: bool
    ) -> registry_pb2.UpdateSpecialistResponse:
        request = registry_pb2.UpdateSpecialistRequest(specialist=definition, validate_only=validate_only)
        return call("registry", self._stub.UpdateSpecialist, request, WRITE_SECONDS)

    def delete_specialist(self, name: str, reason: str, key_id: str) -> None:
        request = registry_pb2.DeleteSpecialistRequest(name=name, reason=reason, decided_by=key_id)
        call("registry", self._stub.DeleteSpecialist, request, WRITE_SECONDS)

    def override(
        self, specialist: str, adapter_digest: str, expected_generation: int, reason: str, key_id: str
    ) -> models_pb2.SpecialistServing:
        request = registry_pb2.PromoteRequest(
            specialist=specialist,
            adapter_digest=adapter_digest,
            expected_generation=expected_generation,
            override=True,
            reason=reason,
            decided_by=key_id,
        )
        return call("registry", self._stub.Promote, request, WRITE_SECONDS).serving

    def list_approvals(self, token: str, specialist: str = "") -> Page[registry_pb2.CatalogueAdapter]:
        request = registry_pb2.ListApprovalsRequest(specialist=specialist, page_token=token, page_size=LIST_SIZE)
        answer = call("registry", self._stub.ListApprovals, request)
        return Page(tuple(answer.adapters), answer.next_page_token)

    def approve(self, adapter_digest: str, reason: str, key_id: str) -> models_pb2.SpecialistServing:
        request = registry_pb2.ApproveAdapterRequest(adapter_digest=adapter_digest, reason=reason, decided_by=key_id)
        return call("registry", self._stub.ApproveAdapter, request, WRITE_SECONDS).serving

    def decline(self, adapter_digest: str, reason: str, key_id: str) -> None:
        request = registry_pb2.DeclineAdapterRequest(adapter_digest=adapter_digest, reason=reason, decided_by=key_id)
        call("registry", self._stub.DeclineAdapter, request, WRITE_SECONDS)

    def list_decisions(self, specialist: str, token: str = "") -> Page[registry_pb2.OperatorDecision]:
        request = registry_pb2.ListDecisionsRequest(specialist=specialist, page_token=token)
        answer = call("registry", self._stub.ListDecisions, request)
        return Page(tuple(answer.decisions), answer.next_page_token)

    def get_leaderboard(self, specialist: str, metric: str) -> registry_pb2.GetLeaderboardResponse:
        request = registry_pb2.GetLeaderboardRequest(specialist=specialist, metric=metric)
        return call("registry", self._stub.GetLeaderboard, request, COUNT_SECONDS)

    def pin_entry(self, specialist: str, entry: str, *, pinned: bool) -> None:
        request = registry_pb2.PinEntryRequest(specialist=specialist, entry=entry, pinned=pinned)
        call("registry", self._stub.PinEntry, request, WRITE_SECONDS)

    def record_judgement(self, judgement: Judgement, request_id: str, key_id: str) -> drafts_pb2.JudgementRecorded:
        request = registry_pb2.RecordJudgementRequest(
            ranking=judgement.ranking,
            marks=[drafts_pb2.DraftMark(**asdict(mark)) for mark in judgement.marks],
            places=judgement.places,
            comment=judgement.comment,
            request_id=request_id,
            judged_by=key_id,
            outcome=OUTCOMES[judgement.outcome],
            seconds=judgement.seconds,
        )
        return call("registry", self._stub.RecordJudgement, request, WRITE_SECONDS).judgement

    def list_keys(self, token: str) -> Page[registry_pb2.Key]:
        request = registry_pb2.ListKeysRequest(page_token=token, page_size=LIST_SIZE)
        answer = call("registry", self._stub.ListKeys, request)
        return Page(tuple(answer.keys), answer.next_page_token)

    def create_key(self, terms: KeyTerms, created_by: str) -> NewKey:
        request = registry_pb2.CreateKeyRequest(
            name=terms.name,
            role=common_pb2.Role.Value(f"ROLE_{terms.role.name}"),
            specialists=terms.specialists,
            methods=terms.methods,
            calls_per_minute=terms.calls_per_minute,
            created_by=created_by,
        )
        if terms.days:
            request.expire_time.FromDatetime(datetime.now(UTC) + timedelta(days=terms.days))
        answer = call("registry", self._stub.CreateKey, request, WRITE_SECONDS)
        return NewKey(answer.key, answer.secret)

    def revoke_key(self, key_id: str, revoked_by: str) -> None:
        request = registry_pb2.RevokeKeyRequest(key_id=key_id, revoked_by=revoked_by)
        call("registry", self._stub.RevokeKey, request, WRITE_SECONDS)


class RowClient(RowSource):
    """Synthetic's datasets."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = synthetic_pb2_grpc.SyntheticServiceStub(channel)

    def find_newest(self, specialist: str) -> str:
        request = synthetic_pb2.ListRowsRequest(specialist=specialist, page_size=1)
        return call("synthetic", self._stub.ListRows, request, COUNT_SECONDS).dataset_digest

    def list_rows(self, query: RowQuery, token: str) -> synthetic_pb2.ListRowsResponse:
        request = synthetic_pb2.ListRowsRequest(
            dataset_digest=query.digest,
            split=synthetic_pb2.Split.Value(f"SPLIT_{(query.split or 'unspecified').upper()}"),
            task=query.task,
            document_id=query.document,
            text=query.text,
            page_size=ROWS_SIZE,
            page_token=token,
        )
        return call("synthetic", self._stub.ListRows, request, COUNT_SECONDS)


class SynthesisClient(SynthesisReader):
    """Syntheses of synthetic."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = synthesis_pb2_grpc.SynthesisServiceStub(channel)

    def list_syntheses(self, token: str, specialist: str = "") -> Page[synthesis_pb2.Synthesis]:
        request = synthesis_pb2.ListSynthesesRequest(specialist=specialist, page_token=token, page_size=LIST_SIZE)
        answer = call("synthetic", self._stub.ListSyntheses, request)
        return Page(tuple(answer.syntheses), answer.next_page_token)

    def get_synthesis(self, synthesis_id: str) -> synthesis_pb2.Synthesis:
        request = synthesis_pb2.GetSynthesisRequest(synthesis_id=synthesis_id)
        return call("synthetic", self._stub.GetSynthesis, request).synthesis

    def list_samples(self, synthesis_id: str, state: str, token: str) -> Page[synthesis_pb2.Sample]:
        number = synthesis_pb2.SampleState.Value(f"SAMPLE_STATE_{state.upper() or 'UNSPECIFIED'}")
        request = synthesis_pb2.ListSamplesRequest(synthesis_id=synthesis_id, state=number, page_token=token)
        answer = call("synthetic", self._stub.ListSamples, request)
        return Page(tuple(answer.samples), answer.next_page_token)

    def review_sample(self, synthesis_id: str, row_id: str, *, accept: bool) -> None:
        decision = synthesis_pb2.SampleDecision(row_id=row_id, accept=accept)
        request = synthesis_pb2.ReviewSamplesRequest(synthesis_id=synthesis_id, decisions=[decision])
        call("synthetic", self._stub.ReviewSamples, request, WRITE_SECONDS)

    def count_comments(self, specialist: str) -> synthesis_pb2.CountCommentsResponse:
        request = synthesis_pb2.CountCommentsRequest(specialist=specialist)
        return call("synthetic", self._stub.CountComments, request)


class InferenceClient(AnswerSource):
    """Inference."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = inference_pb2_grpc.InferenceServiceStub(channel)

    def list_served(self) -> tuple[inference_pb2.ServedSpecialist, ...]:
        """Everything that inference serves, including the base."""
        request = inference_pb2.ListSpecialistsRequest()
        return tuple(call("inference", self._stub.ListSpecialists, request).specialists)

    def ask(self, question: Question) -> RpcStream[inference_pb2.StreamGenerateResponse]:
        sampling = inference_pb2.Sampling(temperature=question.temperature, max_tokens=question.max_tokens or 0)
        generate = inference_pb2.GenerateRequest(model=question.model, prompt=question.prompt, sampling=sampling)
        request = inference_pb2.StreamGenerateRequest(request=generate)
        return RpcStream("inference", self._stub.StreamGenerate(request, timeout=ANSWER_SECONDS))

    def get_draft(self, draft_id: str) -> inference_pb2.GetDraftResponse:
        return call("inference", self._stub.GetDraft, inference_pb2.GetDraftRequest(draft_id=draft_id))

    def regenerate(self, draft_id: str) -> str:
        request = inference_pb2.RegenerateDraftRequest(draft_id=draft_id)
        return call("inference", self._stub.RegenerateDraft, request, ANSWER_SECONDS).draft_id

    def edit_draft(self, draft_id: str, text: str) -> str:
        request = inference_pb2.EditDraftRequest(draft_id=draft_id, text=text)
        return call("inference", self._stub.EditDraft, request, EDIT_SECONDS).draft_id


def connect(settings: Settings) -> tuple[Services, list[grpc.Channel]]:
    """The services at their addresses, and the channels to close at shutdown."""
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
    registry = RegistryClient(channels["registry"])
    evaluation = evaluation_pb2_grpc.EvaluationServiceStub(channels["evaluation"])
    synthetic = synthetic_pb2_grpc.SyntheticServiceStub(channels["synthetic"])

    def get_evaluation(digest: str) -> evaluation_pb2.GetEvaluationResponse:
        request = evaluation_pb2.GetEvaluationRequest(adapter_digest=digest)
        return call("evaluation", evaluation.GetEvaluation, request)

    def evaluate(digest: str, request_id: str) -> str:
        request = evaluation_pb2.EvaluateRequest(adapter_digest=digest, request_id=request_id)
        return call("evaluation", evaluation.Evaluate, request, WRITE_SECONDS).evaluation_id

    def compare_evaluations(
        request: evaluation_pb2.CompareEvaluationsRequest,
    ) -> evaluation_pb2.CompareEvaluationsResponse:
        return call("evaluation", evaluation.CompareEvaluations, request, COUNT_SECONDS)

    def count_near_duplicates(specialist: str) -> synthetic_pb2.CountNearDuplicatesResponse:
        request = synthetic_pb2.CountNearDuplicatesRequest(specialist=specialist)
        return call("synthetic", synthetic.CountNearDuplicates, request, COUNT_SECONDS)

    services = Services(
        catalogue=registry,
        decisions=registry,
        operations=registry,
        keys=registry,
        people=PeopleClient(channels["registry"]),
        sessions=SessionClient(channels["registry"]),
        training=TrainingClient(channels["training"]),
        runs=RunCommandClient(channels["training"]),
        builds=BuildClient(channels["synthetic"]),
        inference=InferenceClient(channels["inference"]),
        syntheses=SynthesisClient(channels["synthetic"]),
        rows=RowClient(channels["synthetic"]),
        review=ReviewClient(channels["anonymization"]),
        judging=JudgingClient(channels["registry"]),
        draws=DrawClient(channels["synthetic"]),
        panel=PanelClient(channels["registry"]),
        get_evaluation=get_evaluation,
        evaluate=evaluate,
        compare_evaluations=compare_evaluations,
        count_near_duplicates=count_near_duplicates,
        start_replay=replay_starter(channels["ingestion"]),
        get_submission=submission_finder(channels["ingestion"]),
        is_healthy=HealthClient(channels).is_healthy,
    )
    return services, list(channels.values())
