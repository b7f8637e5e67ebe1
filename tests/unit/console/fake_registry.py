"""The registry in memory."""

import time
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message

from services.console.domain import Judgement, KeyTerms, Visitor
from services.console.handlers import OUTCOMES
from tailor.api.events.v1 import drafts_pb2, models_pb2
from tailor.api.registry.v1 import audit_pb2, registry_pb2, registry_pb2_grpc
from tailor.codec import decode
from tailor.errors import Aborted, AlreadyExists, NotFound, Reason, TailorError, Unavailable
from tests.unit.console.messages import (
    NEW_KEY,
    SECRET,
    T,
    adapter,
    api_key,
    audit,
    catalogued,
    dataset,
    erasures,
    rejection,
    specialist,
    traces,
)


@dataclass
class FakeRegistry(registry_pb2_grpc.RegistryServiceServicer):
    """The registry's catalogue, decisions and keys."""

    flow: registry_pb2.GetFlowResponse = field(
        default_factory=lambda: registry_pb2.GetFlowResponse(
            ingested=131,
            anonymized=128,
            rejected={"DUPLICATE": 4, "CORRUPT": 1},
            findings={"PERSON": 1210, "EMAIL_ADDRESS": 301},
        )
    )
    audit: audit_pb2.GetAuditResponse = field(default_factory=audit)
    documents: list[registry_pb2.CatalogueDocument] = field(
        default_factory=lambda: [catalogued(1), catalogued(2), rejection()]
    )
    datasets: list[models_pb2.DatasetBuilt] = field(default_factory=lambda: [dataset()])
    adapters: list[registry_pb2.CatalogueAdapter] = field(default_factory=lambda: [adapter()])
    specialists: list[registry_pb2.GetSpecialistResponse] = field(default_factory=lambda: [specialist()])
    keys: list[registry_pb2.Key] = field(default_factory=lambda: [api_key()])
    erasures: list[registry_pb2.Erasure] = field(default_factory=erasures)
    traces: dict[str, registry_pb2.TraceResponse] = field(default_factory=traces)
    visitors: dict[str, Visitor] = field(default_factory=dict)
    page_size: int = 100
    down: bool = False
    # Specialists and datasets of which documents were listed.
    listed: list[tuple[str, str]] = field(default_factory=list)
    audited: list[str] = field(default_factory=list)
    decisions: list[tuple[str, str, str, int]] = field(default_factory=list)
    operator_decisions: list[tuple[str, ...]] = field(default_factory=list)
    updates: list[tuple[models_pb2.SpecialistChanged, bool]] = field(default_factory=list)
    update_error: TailorError | None = None
    defined: list[tuple[models_pb2.SpecialistChanged, str]] = field(default_factory=list)
    waiting: list[registry_pb2.CatalogueAdapter] = field(default_factory=list)
    records: list[registry_pb2.OperatorDecision] = field(default_factory=list)
    leaderboard: registry_pb2.GetLeaderboardResponse = field(default_factory=registry_pb2.GetLeaderboardResponse)
    judgements: dict[str, Judgement] = field(default_factory=dict)
    judged_by: list[str] = field(default_factory=list)
    created: list[KeyTerms] = field(default_factory=list)
    # The keys of the visitors for whom they were created.
    creators: list[str] = field(default_factory=list)
    revoked: list[str] = field(default_factory=list)

    def _answer(self, value: T) -> T:
        if self.down:
            raise Unavailable(Reason.UNAVAILABLE, "registry does not answer.")
        return value

    def _page(self, response: type[Message], name: str, items: list[Any], request: Any, size: int = 0) -> Any:
        start, size = int(request.page_token or 0), size or self.page_size
        more = start + size < len(self._answer(items))
        return response(**{name: items[start : start + size], "next_page_token": str(start + size) if more else ""})

    def GetFlow(self, request: Any, context: Any) -> Any:
        return self._answer(self.flow)

    def GetAudit(self, request: Any, context: Any) -> Any:
        self.audited.append(request.specialist)
        return self._answer(self.audit)

    def ListDocuments(self, request: Any, context: Any) -> Any:
        documents = [item for item in self.documents if item.HasField("rejected") == request.only_rejected]
        if request.document_id:
            documents = [item for item in documents if item.anonymized.document_id == request.document_id]
        elif not request.only_rejected:
            self.listed.append((request.specialist, request.dataset))
        size = min(request.page_size or self.page_size, self.page_size)
        return self._page(registry_pb2.ListDocumentsResponse, "documents", documents, request, size)

    def GetDataset(self, request: Any, context: Any) -> Any:
        known = next((item for item in self._answer(self.datasets) if item.digest == request.digest), None)
        if known is None:
            raise NotFound(Reason.UNKNOWN_DATASET, "This dataset does not exist.")
        skipped = {
            "table_of_digits": registry_pb2.SkippedCount(documents=2, rows=5, characters=7_300),
            "overlap": registry_pb2.SkippedCount(rows=9),
        }
        response = registry_pb2.GetDatasetResponse(
            dataset=known,
            train_tokens=81_000,
            held_out_tokens=9_000,
            skipped=skipped,
        )
        response.imports.add(name="chat", licence="CC-BY-4.0", share_percent=20, source="chat.jsonl", rows=1_250)
        response.languages["is"].CopyFrom(registry_pb2.LanguageCount(rows=31, documents=4))
        response.teacher_tokens = 5_200
        return response

    def ListDatasets(self, request: Any, context: Any) -> Any:
        items = [item for item in self.datasets if request.specialist in ("", item.specialist)]
        return self._page(registry_pb2.ListDatasetsResponse, "datasets", items, request)

    def GetAdapter(self, request: Any, context: Any) -> Any:
        for item in self._answer(self.adapters):
            if item.adapter.digest == request.digest:
                return registry_pb2.GetAdapterResponse(adapter=item)
        raise NotFound(Reason.UNKNOWN_ADAPTER, "This adapter does not exist.")

    def ListAdapters(self, request: Any, context: Any) -> Any:
        items = [item for item in self.adapters if request.specialist in ("", item.adapter.specialist)]
        return self._page(registry_pb2.ListAdaptersResponse, "adapters", items, request)

    def ListSpecialists(self, request: Any, context: Any) -> Any:
        return self._page(registry_pb2.ListSpecialistsResponse, "specialists", self.specialists, request)

    def Trace(self, request: Any, context: Any) -> Any:
        if request.draft_id not in self._answer(self.traces):
            raise NotFound(Reason.UNKNOWN_DRAFT, "This draft does not exist.")
        return self.traces[request.draft_id]

    def ListErasures(self, request: Any, context: Any) -> Any:
        return self._page(registry_pb2.ListErasuresResponse, "erasures", self.erasures, request)

    def _decide(self, command: str, request: Any, digest: str = "") -> models_pb2.SpecialistServing:
        (item,) = [item for item in self._answer(self.specialists) if item.specialist.name == request.specialist]
        if request.expected_generation != item.serving.decision.generation:
            raise Aborted(Reason.GENERATION_MOVED, "Another decision was made first. Reload and retry.")
        self.decisions.append((command, request.specialist, digest, request.expected_generation))
        return models_pb2.SpecialistServing(generation=request.expected_generation + 1, adapter_digest=digest)

    def Promote(self, request: Any, context: Any) -> Any:
        if request.override:
            self.operator_decisions.append(("override", request.adapter_digest, request.reason, request.decided_by))
        serving = self._decide("override" if request.override else "promote", request, request.adapter_digest)
        return registry_pb2.PromoteResponse(serving=serving)

    def Rollback(self, request: Any, context: Any) -> Any:
        return registry_pb2.RollbackResponse(serving=self._decide("roll back", request))

    def StartCanary(self, request: Any, context: Any) -> Any:
        return registry_pb2.StartCanaryResponse(serving=self._decide("start canary", request, request.adapter_digest))

    def StopCanary(self, request: Any, context: Any) -> Any:
        return registry_pb2.StopCanaryResponse(serving=self._decide("stop canary", request))

    def CreateSpecialist(self, request: Any, context: Any) -> Any:
        definition = request.specialist
        if any(item.specialist.name == definition.name for item in self._answer(self.specialists)):
            raise AlreadyExists(Reason.SPECIALIST_EXISTS, "The name means another definition; choose another name.")
        self.defined.append((definition, request.request_id))
        self.specialists.append(registry_pb2.GetSpecialistResponse(specialist=definition))
        return registry_pb2.CreateSpecialistResponse(specialist=definition, created=True)

    def UpdateSpecialist(self, request: Any, context: Any) -> Any:
        if self.update_error:
            raise self.update_error
        definition = request.specialist
        self.updates.append((definition, request.validate_only))
        change = registry_pb2.FieldChange(field="gate.min_rows", before="30", after=str(definition.gate.min_rows))
        return registry_pb2.UpdateSpecialistResponse(specialist=definition, changes=[change])

    def DeleteSpecialist(self, request: Any, context: Any) -> Any:
        self.operator_decisions.append(("delete", request.name, request.reason, request.decided_by))
        return registry_pb2.DeleteSpecialistResponse()

    def ListApprovals(self, request: Any, context: Any) -> Any:
        items = [item for item in self.waiting if request.specialist in ("", item.adapter.specialist)]
        return self._page(registry_pb2.ListApprovalsResponse, "adapters", items, request)

    def ApproveAdapter(self, request: Any, context: Any) -> Any:
        self.operator_decisions.append(("approve", request.adapter_digest, request.reason, request.decided_by))
        serving = models_pb2.SpecialistServing(generation=2, adapter_digest=request.adapter_digest)
        return registry_pb2.ApproveAdapterResponse(serving=serving)

    def DeclineAdapter(self, request: Any, context: Any) -> Any:
        self.operator_decisions.append(("decline", request.adapter_digest, request.reason, request.decided_by))
        return registry_pb2.DeclineAdapterResponse()

    def ListDecisions(self, request: Any, context: Any) -> Any:
        items = [item for item in self.records if request.specialist in ("", item.specialist)]
        return self._page(registry_pb2.ListDecisionsResponse, "decisions", items, request)

    def GetLeaderboard(self, request: Any, context: Any) -> Any:
        return self._answer(self.leaderboard)

    def PinEntry(self, request: Any, context: Any) -> Any:
        self.operator_decisions.append(("pin" if request.pinned else "unpin", request.specialist, request.entry))
        return registry_pb2.PinEntryResponse()

    def RecordJudgement(self, request: Any, context: Any) -> Any:
        outcome = next(name for name, number in OUTCOMES.items() if number == request.outcome)
        self._answer(self.judgements)[request.request_id] = decode(Judgement, request, outcome=outcome)
        self.judged_by.append(request.judged_by)
        progress = drafts_pb2.RoundProgress(sentence="9 ranked prompts; a round needs 42: 33 to go.")
        judgement = drafts_pb2.JudgementRecorded(judgement_id="jdg_" + "4" * 32, round=progress)
        return registry_pb2.RecordJudgementResponse(judgement=judgement)

    def ListKeys(self, request: Any, context: Any) -> Any:
        return self._page(registry_pb2.ListKeysResponse, "keys", self.keys, request)

    def CreateKey(self, request: Any, context: Any) -> Any:
        days = round((request.expire_time.seconds - time.time()) / 86_400) if request.HasField("expire_time") else 0
        self._answer(self.created).append(decode(KeyTerms, request, days=days))
        self.creators.append(request.created_by)
        key = api_key(
            NEW_KEY, name=request.name, role=request.role, specialists=request.specialists, methods=request.methods
        )
        self.keys.insert(0, key)
        return registry_pb2.CreateKeyResponse(key=key, secret=SECRET)

    def RevokeKey(self, request: Any, context: Any) -> Any:
        if request.key_id not in {key.key_id for key in self._answer(self.keys)}:
            raise NotFound(Reason.UNKNOWN_KEY, "This key does not exist.")
        self.revoked.append(request.key_id)
        return registry_pb2.RevokeKeyResponse()

    def check(self) -> None:
        """Raises Unavailable while the registry is down."""
        self._answer(None)
