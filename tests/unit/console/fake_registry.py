"""The registry in memory."""

from dataclasses import dataclass, field

from services.console.domain import Judgement, KeyTerms, Page, Visitor
from services.console.ports import ApiKeys, CatalogueReader, Decisions, NewKey, Operations
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import drafts_pb2, models_pb2
from tailor.api.registry.v1 import audit_pb2, registry_pb2
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
    edit,
    erasures,
    rejection,
    specialist,
    traces,
)


@dataclass
class FakeRegistry(CatalogueReader, Decisions, Operations, ApiKeys):
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

    def _page(self, items: list[T], token: str, size: int | None = None) -> Page[T]:
        start, size = int(token or 0), size or self.page_size
        more = start + size < len(self._answer(items))
        return Page(tuple(items[start : start + size]), str(start + size) if more else "")

    def get_flow(self) -> registry_pb2.GetFlowResponse:
        return self._answer(self.flow)

    def get_audit(self, specialist: str) -> audit_pb2.GetAuditResponse:
        self.audited.append(specialist)
        return self._answer(self.audit)

    def list_documents(
        self, token: str, specialist: str, size: int, dataset: str
    ) -> Page[registry_pb2.CatalogueDocument]:
        self.listed.append((specialist, dataset))
        documents = [item for item in self.documents if item.HasField("anonymized")]
        return self._page(documents, token, min(size, self.page_size))

    def list_rejected(self, token: str, size: int) -> Page[registry_pb2.CatalogueDocument]:
        rejected = [item for item in self.documents if item.HasField("rejected")]
        return self._page(rejected, token, min(size, self.page_size))

    def get_document(self, document_id: str) -> registry_pb2.CatalogueDocument:
        for item in self._answer(self.documents):
            if item.anonymized.document_id == document_id:
                return item
        raise NotFound(Reason.UNKNOWN_DOCUMENT, "There is no anonymised document with this id.")

    def get_dataset(self, digest: str) -> models_pb2.DatasetBuilt:
        for item in self._answer(self.datasets):
            if item.digest == digest:
                return item
        raise NotFound(Reason.UNKNOWN_DATASET, "This dataset does not exist.")

    def describe_dataset(self, digest: str) -> registry_pb2.GetDatasetResponse:
        left_out = {
            "table_of_digits": registry_pb2.LeftOutCount(documents=2, rows=5, characters=7_300),
            "overlap": registry_pb2.LeftOutCount(rows=9),
        }
        response = registry_pb2.GetDatasetResponse(
            dataset=self.get_dataset(digest),
            train_tokens=81_000,
            held_out_tokens=9_000,
            left_out=left_out,
            quiz=registry_pb2.QuizCounts(documents=80, questions=240, beyond_limit=7, without_questions=3),
        )
        response.imports.add(name="chat", licence="CC-BY-4.0", share_percent=20, source="chat.jsonl", rows=1_250)
        response.languages["is"].CopyFrom(registry_pb2.LanguageCount(rows=31, documents=4))
        response.teacher_tokens = 5_200
        return response

    def list_datasets(self, token: str, specialist: str = "") -> Page[models_pb2.DatasetBuilt]:
        return self._page([item for item in self.datasets if specialist in ("", item.specialist)], token)

    def get_adapter(self, digest: str) -> registry_pb2.CatalogueAdapter:
        for item in self._answer(self.adapters):
            if item.adapter.digest == digest:
                return item
        raise NotFound(Reason.UNKNOWN_ADAPTER, "This adapter does not exist.")

    def list_adapters(self, token: str, specialist: str = "") -> Page[registry_pb2.CatalogueAdapter]:
        return self._page([item for item in self.adapters if specialist in ("", item.adapter.specialist)], token)

    def list_specialists(self, token: str) -> Page[registry_pb2.GetSpecialistResponse]:
        return self._page(self.specialists, token)

    def trace(self, draft_id: str) -> registry_pb2.TraceResponse:
        if draft_id not in self._answer(self.traces):
            raise NotFound(Reason.UNKNOWN_DRAFT, "This draft does not exist.")
        return edit(self.traces[draft_id])

    def list_erasures(self, token: str) -> Page[registry_pb2.Erasure]:
        return self._page(self.erasures, token)

    def _decide(self, command: str, specialist: str, digest: str, expected: int) -> models_pb2.SpecialistServing:
        (item,) = [item for item in self._answer(self.specialists) if item.specialist.name == specialist]
        if expected != item.serving.decision.generation:
            raise Aborted(Reason.GENERATION_MOVED, "Another decision was made first. Reload and retry.")
        self.decisions.append((command, specialist, digest, expected))
        return models_pb2.SpecialistServing(generation=expected + 1, adapter_digest=digest)

    def promote(self, specialist: str, adapter_digest: str, expected_generation: int) -> models_pb2.SpecialistServing:
        return self._decide("promote", specialist, adapter_digest, expected_generation)

    def roll_back(self, specialist: str, expected_generation: int) -> models_pb2.SpecialistServing:
        return self._decide("roll back", specialist, "", expected_generation)

    def start_canary(
        self, specialist: str, adapter_digest: str, expected_generation: int
    ) -> models_pb2.SpecialistServing:
        return self._decide("start canary", specialist, adapter_digest, expected_generation)

    def stop_canary(self, specialist: str, expected_generation: int) -> models_pb2.SpecialistServing:
        return self._decide("stop canary", specialist, "", expected_generation)

    def create_specialist(
        self, definition: models_pb2.SpecialistChanged, request_id: str
    ) -> registry_pb2.CreateSpecialistResponse:
        known = next((item for item in self._answer(self.specialists) if item.specialist.name == definition.name), None)
        if known:
            raise AlreadyExists(Reason.SPECIALIST_EXISTS, "The name means another definition; choose another name.")
        self.defined.append((definition, request_id))
        self.specialists.append(registry_pb2.GetSpecialistResponse(specialist=definition))
        return registry_pb2.CreateSpecialistResponse(specialist=definition, created=True)

    def update_specialist(
        self, definition: models_pb2.SpecialistChanged, *, validate_only: bool
    ) -> registry_pb2.UpdateSpecialistResponse:
        if self.update_error:
            raise self.update_error
        self.updates.append((definition, validate_only))
        change = registry_pb2.FieldChange(field="gate.min_rows", before="30", after=str(definition.gate.min_rows))
        return registry_pb2.UpdateSpecialistResponse(specialist=definition, changes=[change])

    def delete_specialist(self, name: str, reason: str, key_id: str) -> None:
        self.operator_decisions.append(("delete", name, reason, key_id))

    def override(
        self, specialist: str, adapter_digest: str, expected_generation: int, reason: str, key_id: str
    ) -> models_pb2.SpecialistServing:
        self.operator_decisions.append(("override", adapter_digest, reason, key_id))
        return self._decide("override", specialist, adapter_digest, expected_generation)

    def list_approvals(self, token: str, specialist: str = "") -> Page[registry_pb2.CatalogueAdapter]:
        return self._page([item for item in self.waiting if specialist in ("", item.adapter.specialist)], token)

    def approve(self, adapter_digest: str, reason: str, key_id: str) -> models_pb2.SpecialistServing:
        self.operator_decisions.append(("approve", adapter_digest, reason, key_id))
        return models_pb2.SpecialistServing(generation=2, adapter_digest=adapter_digest)

    def decline(self, adapter_digest: str, reason: str, key_id: str) -> None:
        self.operator_decisions.append(("decline", adapter_digest, reason, key_id))

    def list_decisions(self, specialist: str, token: str = "") -> Page[registry_pb2.OperatorDecision]:
        return self._page([item for item in self.records if specialist in ("", item.specialist)], token)

    def get_leaderboard(self, specialist: str, metric: str) -> registry_pb2.GetLeaderboardResponse:
        return self._answer(self.leaderboard)

    def pin_entry(self, specialist: str, entry: str, *, pinned: bool) -> None:
        self.operator_decisions.append(("pin" if pinned else "unpin", specialist, entry))

    def record_judgement(self, judgement: Judgement, request_id: str, key_id: str) -> drafts_pb2.JudgementRecorded:
        self._answer(self.judgements)[request_id] = judgement
        self.judged_by.append(key_id)
        progress = drafts_pb2.RoundProgress(sentence="9 ranked prompts; a round needs 42: 33 to go.")
        return drafts_pb2.JudgementRecorded(judgement_id="jdg_" + "4" * 32, round=progress)

    def list_keys(self, token: str) -> Page[registry_pb2.Key]:
        return self._page(self.keys, token)

    def create_key(self, terms: KeyTerms, created_by: str) -> NewKey:
        self._answer(self.created).append(terms)
        self.creators.append(created_by)
        role = common_pb2.Role.Value(f"ROLE_{terms.role.name}")
        key = api_key(NEW_KEY, name=terms.name, role=role, specialists=terms.specialists, methods=terms.methods)
        self.keys.insert(0, key)
        return NewKey(key, SECRET)

    def revoke_key(self, key_id: str, revoked_by: str) -> None:
        if key_id not in {key.key_id for key in self._answer(self.keys)}:
            raise NotFound(Reason.UNKNOWN_KEY, "This key does not exist.")
        self.revoked.append(key_id)

    def check(self) -> None:
        """Raises Unavailable while the registry is down."""
        self._answer(None)
