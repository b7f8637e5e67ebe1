"""Services in memory, and a browser that is signed in to a console over them."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Generic, TypeVar

from fastapi.testclient import TestClient
from google.protobuf.message import Message
from pydantic import SecretStr

from services.console.domain import Judgement, KeyTerms, Page, Question, Role, RowQuery, Visitor
from services.console.ports import (
    AnswerSource,
    ApiKeys,
    CatalogueReader,
    CloseableStream,
    Decisions,
    NewKey,
    Operations,
    RowSource,
    RunReader,
    Services,
    SynthesisReader,
)
from services.console.settings import Settings
from services.console.web.app import create_app
from tailor.api.common.v1 import common_pb2
from tailor.api.evaluation.v1 import evaluation_pb2
from tailor.api.events.v1 import documents_pb2, drafts_pb2, models_pb2
from tailor.api.inference.v1 import inference_pb2
from tailor.api.ingestion.v1 import ingestion_pb2
from tailor.api.registry.v1 import audit_pb2, registry_pb2
from tailor.api.synthetic.v1 import synthesis_pb2, synthetic_pb2
from tailor.api.training.v1 import training_pb2
from tailor.errors import Aborted, NotFound, Reason, TailorError, Unavailable
from tailor.wire import from_datetime
from tests.evaluations import make_definitions, make_estimate, make_evaluated, make_figures
from tests.unit.console.review_fakes import FakePassageReview

T = TypeVar("T")
M = TypeVar("M", bound=Message)

PASSWORD = "correct horse battery"
NAME = "engagement-reports"
BASE = "smollm2-135m-instruct"
ADAPTER = "a" * 64
OLD_ADAPTER = "b" * 64
DATASET = "d" * 64
PREFERENCES = "e" * 64
RUN = "run_" + "1" * 32
SYNTHESIS_ID = "syn_" + "5" * 32
DRAFT = "drf_" + "2" * 32
BASE_DRAFT = "drf_" + "3" * 32
NOW = datetime(2026, 5, 4, 9, 30, tzinfo=UTC)
STAMP = from_datetime(NOW)
KEY = "key_0011223344556677"
NEW_KEY = "key_" + "9" * 16
SECRET = "tlr_shown-this-once"
LABELS = common_pb2.Labels(source="sharepoint", department="risk", confidentiality="internal")


def edit(message: M, /, **changes: Any) -> M:
    """A copy with other values in some fields; None clears a field."""
    copy = type(message)()
    copy.CopyFrom(message)
    for name in changes:
        copy.ClearField(name)
    copy.MergeFrom(type(message)(**changes))
    return copy


def later(minutes: float) -> Any:
    return from_datetime(NOW + timedelta(minutes=minutes))


class ListStream(CloseableStream[T], Generic[T]):
    """A stream of the given items, then of the error if there is one."""

    def __init__(self, items: Sequence[T], error: TailorError | None = None) -> None:
        self.items = items
        self.error = error
        self.closed = False

    def __iter__(self) -> Iterator[T]:
        yield from self.items
        if self.error:
            raise self.error

    def close(self) -> None:
        self.closed = True


def document(number: int = 1, **changes: Any) -> documents_pb2.DocumentAnonymized:
    message = documents_pb2.DocumentAnonymized(
        document_id=f"doc_{number:032x}",
        version=common_pb2.Version(sequence=number),
        kind=common_pb2.KIND_DOCUMENT,
        labels=LABELS,
        format="pdf",
        char_count=4200 + number,
        findings={"PERSON": 3, "EMAIL_ADDRESS": 1},
        create_time=STAMP,
    )
    return edit(message, **changes)


def catalogued(number: int = 1, **changes: Any) -> registry_pb2.CatalogueDocument:
    return registry_pb2.CatalogueDocument(anonymized=document(number, **changes))


def rejection(hint: str = "Publish the file again, whole.") -> registry_pb2.CatalogueDocument:
    rejected = documents_pb2.DocumentRejected(
        document_id="doc_" + "f" * 32,
        stage=documents_pb2.STAGE_INGESTION,
        reason=documents_pb2.REJECTION_REASON_CORRUPT,
        hint=hint,
        labels=LABELS,
        format="pdf",
        create_time=STAMP,
    )
    return registry_pb2.CatalogueDocument(rejected=rejected)


def evaluated(**incumbent: float) -> models_pb2.AdapterEvaluated:
    base = {"log_likelihood": -3.18, "rougeL": 0.12, "bleu": 2.4, "terms": 0.05, "perplexity": 24.2}
    candidate = {"log_likelihood": -2.26, "rougeL": 0.23, "bleu": 9.8, "terms": 0.47, "perplexity": 9.6}
    figures = [
        make_figures(
            name,
            lower_is_better=name == "perplexity",
            rows=48,
            base=base[name],
            **({"incumbent": incumbent[name]} if name in incumbent else {}),
            candidate=candidate[name],
        )
        for name in base
    ]
    return make_evaluated(
        ADAPTER,
        NAME,
        *figures,
        evaluation_id="evl_1",
        dataset_digest=DATASET,
        incumbent_digest=OLD_ADAPTER if incumbent else "",
        incumbent_generation=1 if incumbent else 0,
        rows=48,
        held_out_rows=60,
        rows_too_long=2,
        definitions=make_definitions(1, 4),
        goals=[
            models_pb2.Goal(
                metric="bleu",
                goal=5,
                is_gain=True,
                estimate=make_estimate(6.5),
                state=models_pb2.GOAL_STATE_REACHED,
            )
        ],
        create_time=STAMP,
    )


def trained(digest: str = ADAPTER, **changes: Any) -> models_pb2.AdapterTrained:
    message = models_pb2.AdapterTrained(
        digest=digest,
        kind=models_pb2.ADAPTER_KIND_POLICY,
        specialist=NAME,
        run_id=RUN,
        dataset_digest=DATASET,
        base=BASE,
        steps=120,
        first_loss=3.16,
        last_loss=2.41,
        tokens_per_second=290.0,
        seconds=171.0,
        create_time=STAMP,
    )
    return edit(message, **changes)


def adapter(weights: models_pb2.AdapterTrained | None = None, **changes: Any) -> registry_pb2.CatalogueAdapter:
    message = registry_pb2.CatalogueAdapter(
        adapter=weights or trained(),
        evaluation=evaluated(),
        decision=registry_pb2.DECISION_PASSED,
        state=registry_pb2.ADAPTER_STATE_PASSED,
    )
    return edit(message, **changes)


def dataset(**changes: Any) -> models_pb2.DatasetBuilt:
    message = models_pb2.DatasetBuilt(
        digest=DATASET,
        specialist=NAME,
        kind=models_pb2.DATASET_KIND_SFT,
        train_rows=432,
        held_out_rows=48,
        base=BASE,
        programme=[models_pb2.ProgrammeStage(stage="sft", recipe="sft-lora")],
        documents=118,
        figures=models_pb2.DatasetFigures(coverage=0.934, grounded=0.99, characters=424_912),
        create_time=STAMP,
    )
    return edit(message, **changes)


def progress(step: int = 40, **changes: Any) -> models_pb2.RunProgressed:
    message = models_pb2.RunProgressed(
        phase="training",
        step=step,
        total_steps=120,
        loss=3.16 - step * 0.006,
        learning_rate=2e-4,
        gradient_norm=0.9,
        tokens_per_second=288.4,
        remaining_seconds=(120 - step) * 1.4,
    )
    return edit(message, **changes)


def run(state: str = "running", step: int = 40, **changes: Any) -> training_pb2.Run:
    message = training_pb2.Run(
        run_id=RUN,
        specialist=NAME,
        dataset_digest=DATASET,
        base=BASE,
        recipe="sft-lora",
        state=training_pb2.RunState.Value(f"RUN_STATE_{state.upper()}"),
        progress=progress(step),
        epoch=1,
        first_loss=3.16,
        create_time=STAMP,
        start_time=STAMP,
        stages=[training_pb2.RunStage(recipe="sft-lora", method="sft", dataset_digest=DATASET)],
        plan=plan(),
    )
    return edit(message, **changes)


def plan(**changes: Any) -> training_pb2.RunPlan:
    message = training_pb2.RunPlan(
        rows=432,
        tokens=39_000,
        steps=120,
        memory_bytes=2**31,
        device_memory_bytes=2**34,
        device="2 CPU cores",
        seconds=360.0,
        seconds_from="measured",
        price=training_pb2.Price(currency="EUR", total=0.35, compute=0.10, teacher=0.05, annotation=0.20),
        create_time=STAMP,
    )
    return edit(message, **changes)


def report(**changes: Any) -> training_pb2.RunReport:
    message = training_pb2.RunReport(
        rows=432,
        tokens=40_000,
        steps=120,
        memory_bytes=2**30,
        seconds=400.0,
        price=training_pb2.Price(currency="EUR", total=0.40, compute=0.15, teacher=0.05, annotation=0.20),
        memory_error=1.0,
        seconds_error=-0.1,
        tokens_error=-0.025,
    )
    return edit(message, **changes)


def staged(state: str = "queued", **changes: Any) -> training_pb2.Run:
    """A run of three stages that is in its second one."""
    policy = models_pb2.ADAPTER_KIND_POLICY
    stages = [
        training_pb2.RunStage(
            recipe="sft-lora", method="sft", dataset_digest=DATASET, adapter_digest=ADAPTER, kind=policy
        ),
        training_pb2.RunStage(recipe="reward", method="reward", dataset_digest=PREFERENCES),
        training_pb2.RunStage(recipe="rloo", method="rloo", dataset_digest=PREFERENCES),
    ]
    reason, message = "WAITS_FOR_PLACE", "Waits for one of 1 places."
    waiting = run(state, stages=stages, stage=1, parent_digest=OLD_ADAPTER, reason=reason, message=message)
    return edit(waiting, **changes)


def update(run: training_pb2.Run, *lines: training_pb2.LogLine) -> training_pb2.WatchRunResponse:
    return training_pb2.WatchRunResponse(run=run, log_lines=lines)


def log_line(message: str, level: str = "info", epoch: int = 1) -> training_pb2.LogLine:
    return training_pb2.LogLine(create_time=STAMP, level=level, message=message, epoch=epoch)


def serving(generation: int = 1, *replicas: registry_pb2.ReplicaState) -> registry_pb2.Serving:
    """What serves: finished if every replica serves it."""
    decision = models_pb2.SpecialistServing(generation=generation, adapter_digest=OLD_ADAPTER, create_time=STAMP)
    rollout = replicas or (registry_pb2.ReplicaState(replica="inference-0", serving=True),)
    finished = all(replica.serving for replica in rollout)
    return registry_pb2.Serving(decision=decision, rollout=rollout, finished=finished)


def specialist(name: str = NAME, generation: int = 1, **changes: Any) -> registry_pb2.GetSpecialistResponse:
    primary = models_pb2.PrimaryMetric(metric="log_likelihood", min_gain=0.02)
    guards = [models_pb2.Guard(metric="rougeL", margin=0.01)]
    definition = models_pb2.SpecialistChanged(
        name=name,
        revision=2,
        description="Writes engagement reports.",
        base=BASE,
        recipe="sft-lora",
        selection=models_pb2.Selection(sources=["sharepoint"], confidentialities=["internal", "public"]),
        rebuild=models_pb2.RebuildPolicy(min_new_items=20, quiet_seconds=15, min_interval_seconds=60),
        gate=models_pb2.Gate(primary=primary, guards=guards, min_rows=30),
        house_terms=[str(number) for number in range(24)],
        update_time=STAMP,
    )
    return registry_pb2.GetSpecialistResponse(
        specialist=edit(definition, **changes), serving=serving(generation) if generation else None
    )


def draft(draft_id: str = DRAFT, specialist: str = NAME, **changes: Any) -> drafts_pb2.DraftCreated:
    message = drafts_pb2.DraftCreated(
        draft_id=draft_id,
        specialist=specialist,
        generation=1 if specialist else 0,
        adapter_digest=ADAPTER,
        dataset_digest=DATASET,
        base="base",
        prompt_tokens=40,
        completion_tokens=120,
        finish_reason="stop",
        first_token_seconds=0.3,
        seconds=5.1,
        create_time=STAMP,
    )
    return edit(message, **changes)


def traces() -> dict[str, registry_pb2.TraceResponse]:
    """A draft of the specialist, and one of the base."""
    known = registry_pb2.TraceResponse(
        draft=draft(),
        adapter=trained(),
        dataset=dataset(),
        documents=[document(1), document(2)],
        evaluation=evaluated(),
    )
    return {DRAFT: known, BASE_DRAFT: registry_pb2.TraceResponse(draft=draft(BASE_DRAFT, ""))}


def api_key(key_id: str = KEY, **changes: Any) -> registry_pb2.Key:
    message = registry_pb2.Key(key_id=key_id, name="CI publisher", role=common_pb2.ROLE_ENGINEER, create_time=STAMP)
    return edit(message, **changes)


def erasures() -> list[registry_pb2.Erasure]:
    """An erasure that waits for two services, and one with a receipt."""
    return [
        registry_pb2.Erasure(
            erasure_id="ers_" + "1" * 32,
            document_ids=["doc_" + "1" * 32],
            reason="court-order",
            waiting_for=["inference", "training"],
            create_time=STAMP,
        ),
        registry_pb2.Erasure(
            erasure_id="ers_" + "2" * 32,
            document_ids=["doc_" + "2" * 32],
            reason="tombstone",
            receipt=registry_pb2.Receipt(body='{"documents": 1}', signature=b"\xab\x12"),
            create_time=STAMP,
        ),
    ]


def audit() -> audit_pb2.GetAuditResponse:
    groups = [
        audit_pb2.AuditGroup(value="sharepoint", documents=90, characters=90_000, findings=180),
        audit_pb2.AuditGroup(documents=10, characters=10_000),
    ]
    english = audit_pb2.AuditGroup(value="en", documents=100, characters=100_000, findings=180)
    bins = [
        audit_pb2.AuditBin(below_chars=250, documents=30),
        audit_pb2.AuditBin(from_chars=250, below_chars=500),
        audit_pb2.AuditBin(from_chars=500, below_chars=1_000, documents=70),
    ]
    return audit_pb2.GetAuditResponse(
        totals=audit_pb2.AuditTotals(documents=100, characters=100_000, findings=180),
        dimensions=[
            audit_pb2.AuditDimension(field=audit_pb2.AUDIT_FIELD_SOURCE, groups=groups, more_values=3),
            audit_pb2.AuditDimension(field=audit_pb2.AUDIT_FIELD_LANGUAGE, groups=[english]),
        ],
        lengths=audit_pb2.AuditLengths(
            min_chars=20,
            max_chars=9_000,
            mean_chars=1_000.0,
            percentiles={5: 40.0, 50: 900.0, 99: 8_000.0},
            histogram=bins,
        ),
        findings=[
            audit_pb2.AuditFinding(entity_type="PERSON", values=150, documents=80, per_thousand_chars=1.5),
            audit_pb2.AuditFinding(entity_type="EMAIL_ADDRESS", values=30, documents=12, per_thousand_chars=0.3),
        ],
        rejections=[
            audit_pb2.AuditRejection(reason="DUPLICATE", format="pdf", stage="ingestion", submissions=4),
            audit_pb2.AuditRejection(reason="CORRUPT", stage="ingestion", submissions=1),
        ],
        duplicates=4,
        datasets=[
            audit_pb2.AuditDataset(
                specialist=NAME,
                adapter_digest=ADAPTER,
                dataset_digest=DATASET,
                documents=95,
                figures=models_pb2.DatasetFigures(coverage=0.912, grounded=0.987, characters=88_000),
                left_out=[audit_pb2.AuditLeftOut(reason="no_words", documents=2, characters=5_000)],
                quiz_documents=80,
                quiz_questions=240,
                knowledge=audit_pb2.AuditKnowledge(documents=40, asked=120, learned=90, missed=25, contradicted=5),
            )
        ],
        estimate=audit_pb2.AuditEstimate(tokens=25_000, tokens_per_second=250.0, run_id=RUN, seconds=100.0),
        create_time=STAMP,
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
    audited: list[str] = field(default_factory=list)
    decisions: list[tuple[str, str, str, int]] = field(default_factory=list)
    operator_decisions: list[tuple[str, ...]] = field(default_factory=list)
    updates: list[tuple[models_pb2.SpecialistChanged, bool]] = field(default_factory=list)
    update_error: TailorError | None = None
    waiting: list[registry_pb2.CatalogueAdapter] = field(default_factory=list)
    records: list[registry_pb2.OperatorDecision] = field(default_factory=list)
    leaderboard: registry_pb2.GetLeaderboardResponse = field(default_factory=registry_pb2.GetLeaderboardResponse)
    judgements: dict[str, Judgement] = field(default_factory=dict)
    created: list[KeyTerms] = field(default_factory=list)
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

    def list_documents(self, token: str, specialist: str, size: int) -> Page[registry_pb2.CatalogueDocument]:
        return self._page(self.documents, token, min(size, self.page_size))

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

    def list_datasets(self, token: str) -> Page[models_pb2.DatasetBuilt]:
        return self._page(self.datasets, token)

    def get_adapter(self, digest: str) -> registry_pb2.CatalogueAdapter:
        for item in self._answer(self.adapters):
            if item.adapter.digest == digest:
                return item
        raise NotFound(Reason.UNKNOWN_ADAPTER, "This adapter does not exist.")

    def list_adapters(self, token: str) -> Page[registry_pb2.CatalogueAdapter]:
        return self._page(self.adapters, token)

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

    def list_approvals(self, token: str) -> Page[registry_pb2.CatalogueAdapter]:
        return self._page(self.waiting, token)

    def approve(self, adapter_digest: str, reason: str, key_id: str) -> models_pb2.SpecialistServing:
        self.operator_decisions.append(("approve", adapter_digest, reason, key_id))
        return models_pb2.SpecialistServing(generation=2, adapter_digest=adapter_digest)

    def decline(self, adapter_digest: str, reason: str, key_id: str) -> None:
        self.operator_decisions.append(("decline", adapter_digest, reason, key_id))

    def list_decisions(self, specialist: str) -> Page[registry_pb2.OperatorDecision]:
        return Page(tuple(self._answer(self.records)))

    def get_leaderboard(self, specialist: str, metric: str) -> registry_pb2.GetLeaderboardResponse:
        return self._answer(self.leaderboard)

    def pin_entry(self, specialist: str, entry: str, *, pinned: bool) -> None:
        self.operator_decisions.append(("pin" if pinned else "unpin", specialist, entry))

    def record_judgement(self, judgement: Judgement, request_id: str) -> drafts_pb2.JudgementRecorded:
        self._answer(self.judgements)[request_id] = judgement
        progress = drafts_pb2.RoundProgress(sentence="9 ranked prompts; a round needs 42: 33 to go.")
        return drafts_pb2.JudgementRecorded(judgement_id="jdg_" + "4" * 32, round=progress)

    def list_keys(self, token: str) -> Page[registry_pb2.Key]:
        return self._page(self.keys, token)

    def create_key(self, terms: KeyTerms) -> NewKey:
        self._answer(self.created).append(terms)
        role = common_pb2.Role.Value(f"ROLE_{terms.role.name}")
        key = api_key(NEW_KEY, name=terms.name, role=role, specialists=terms.specialists, methods=terms.methods)
        self.keys.insert(0, key)
        return NewKey(key, SECRET)

    def revoke_key(self, key_id: str) -> None:
        if key_id not in {key.key_id for key in self._answer(self.keys)}:
            raise NotFound(Reason.UNKNOWN_KEY, "This key does not exist.")
        self.revoked.append(key_id)

    def verify_key(self, secret_sha256: str) -> Visitor:
        if secret_sha256 not in self._answer(self.visitors):
            raise NotFound(Reason.UNKNOWN_KEY, "This key does not exist.")
        return self.visitors[secret_sha256]


@dataclass
class FakeTraining(RunReader):
    runs: list[training_pb2.Run] = field(default_factory=lambda: [run()])
    updates: list[training_pb2.WatchRunResponse] = field(
        default_factory=lambda: [update(run(step=step)) for step in range(1, 4)]
    )
    down: bool = False

    def list_runs(self, token: str) -> Page[training_pb2.Run]:
        if self.down:
            raise Unavailable(Reason.UNAVAILABLE, "training does not answer.")
        return Page(tuple(self.runs))

    def get_run(self, run_id: str) -> training_pb2.Run:
        for item in self.list_runs("").items:
            if item.run_id == run_id:
                return item
        raise NotFound(Reason.UNKNOWN_RUN, "This run does not exist.")

    def watch_run(self, run_id: str) -> ListStream[training_pb2.WatchRunResponse]:
        return ListStream(self.updates)


@dataclass
class FakeEvaluation:
    answers: dict[str, evaluation_pb2.GetEvaluationResponse] = field(
        default_factory=lambda: {
            ADAPTER: evaluation_pb2.GetEvaluationResponse(
                evaluation_id="evl_1",
                state=evaluation_pb2.EVALUATION_STATE_SUCCEEDED,
                rows_done=96,
                rows_total=96,
                result=evaluated(),
                report_markdown="# Report\n\nAll well.",
                plot_png=b"\x89PNG fake",
            )
        }
    )
    compared: list[evaluation_pb2.CompareEvaluationsRequest] = field(default_factory=list)
    down: bool = False

    def compare(self, request: evaluation_pb2.CompareEvaluationsRequest) -> evaluation_pb2.CompareEvaluationsResponse:
        self.compared.append(request)
        row = evaluation_pb2.RowComparison(
            row_id="row_7",
            task="report",
            language="en",
            prompt="Write it.",
            first_answer="The old <b>answer</b>.",
            second_answer="The new <b>answer</b>.",
            first_value=0.2,
            second_value=0.5,
            gain=0.3,
        )
        whole = evaluation_pb2.GroupComparison(
            rows=48, first=make_estimate(0.2), second=make_estimate(0.4), gain=make_estimate(0.2)
        )
        return evaluation_pb2.CompareEvaluationsResponse(
            metric="rougeL", metrics=["rougeL", "bleu"], groups=[whole], rows=[row], only_first=3
        )

    def get(self, adapter_digest: str) -> evaluation_pb2.GetEvaluationResponse:
        if self.down:
            raise Unavailable(Reason.UNAVAILABLE, "evaluation does not answer.")
        if adapter_digest not in self.answers:
            raise NotFound(Reason.UNKNOWN_EVALUATION, "This evaluation does not exist.")
        return self.answers[adapter_digest]


def row(number: int = 1, **changes: Any) -> synthetic_pb2.Row:
    message = synthetic_pb2.Row(
        row_id=f"row_{number}",
        task="answer",
        document_ids=[f"doc_{1:032x}"],
        split=synthetic_pb2.SPLIT_TRAIN,
        messages=[
            synthetic_pb2.RowMessage(role="user", content="What is due?"),
            synthetic_pb2.RowMessage(role="assistant", content=f"Payment {number}."),
        ],
        language="en",
        tokens=1234,
        grounding="yes",
        made_by="structure",
    )
    return edit(message, **changes)


@dataclass
class FakeRows(RowSource):
    """One page of rows per item of `pages`."""

    pages: list[list[synthetic_pb2.Row]] = field(default_factory=lambda: [[row(1), row(2)], [row(3)]])
    down: bool = False
    asked: list[tuple[RowQuery, str]] = field(default_factory=list)

    def _answer(self) -> None:
        if self.down:
            raise Unavailable(Reason.UNAVAILABLE, "synthetic does not answer.")

    def find_newest(self, specialist: str) -> str:
        self._answer()
        if specialist != NAME:
            raise NotFound(Reason.UNKNOWN_DATASET, "There is no such dataset.")
        return DATASET

    def list_rows(self, query: RowQuery, token: str) -> synthetic_pb2.ListRowsResponse:
        self._answer()
        self.asked.append((query, token))
        at = int(token or 0)
        following = str(at + 1) if at + 1 < len(self.pages) else ""
        return synthetic_pb2.ListRowsResponse(rows=self.pages[at], next_page_token=following, scanned_rows=500)


def synthesis(**changes: Any) -> synthesis_pb2.Synthesis:
    message = synthesis_pb2.Synthesis(
        synthesis_id=SYNTHESIS_ID,
        spec=synthesis_pb2.SynthesisSpec(
            specialist=NAME, task="risk-assessment", target=300, budget_eur=2.0, document_ids=["doc_1"]
        ),
        state=synthesis_pb2.SYNTHESIS_STATE_RUNNING,
        teacher="wise",
        accepted=41,
        pending=3,
        refusals=[synthesis_pb2.SynthesisRefusals(reason="near_duplicate", rows=7)],
        use=synthesis_pb2.SynthesisUse(answers=51, tokens=61_000, eur=0.61),
        create_time=STAMP,
    )
    return edit(message, **changes)


def sample(row_id: str = "row_1", state: str = "pending", **changes: Any) -> synthesis_pb2.Sample:
    message = synthesis_pb2.Sample(
        row_id=row_id,
        state=synthesis_pb2.SampleState.Value(f"SAMPLE_STATE_{state.upper()}"),
        task="risk-assessment",
        prompt="Assess <b>the ferry</b>.",
        completion="The ferry is a low risk.",
        language="en",
        mark=4,
    )
    return edit(message, **changes)


@dataclass
class FakeSyntheses(SynthesisReader):
    syntheses: list[synthesis_pb2.Synthesis] = field(default_factory=lambda: [synthesis()])
    samples: list[synthesis_pb2.Sample] = field(default_factory=lambda: [sample(), sample("row_2", "accepted")])
    decisions: list[tuple[str, str, bool]] = field(default_factory=list)
    down: bool = False

    def list_syntheses(self, token: str) -> Page[synthesis_pb2.Synthesis]:
        if self.down:
            raise Unavailable(Reason.UNAVAILABLE, "synthetic does not answer.")
        return Page(tuple(self.syntheses))

    def get_synthesis(self, synthesis_id: str) -> synthesis_pb2.Synthesis:
        for item in self.list_syntheses("").items:
            if item.synthesis_id == synthesis_id:
                return item
        raise NotFound(Reason.UNKNOWN_SYNTHESIS, "There is no such synthesis.")

    def list_samples(self, synthesis_id: str, state: str, token: str) -> Page[synthesis_pb2.Sample]:
        wanted = synthesis_pb2.SampleState.Value(f"SAMPLE_STATE_{state.upper() or 'UNSPECIFIED'}")
        return Page(tuple(item for item in self.samples if not wanted or item.state == wanted))

    def review_sample(self, synthesis_id: str, row_id: str, *, accept: bool) -> None:
        self.decisions.append((synthesis_id, row_id, accept))


@dataclass
class FakeInference(AnswerSource):
    names: tuple[str, ...] = ("base", NAME)
    error: TailorError | None = None
    down: bool = False
    asked: list[Question] = field(default_factory=list)
    streams: list[ListStream[inference_pb2.StreamGenerateResponse]] = field(default_factory=list)
    texts: dict[str, inference_pb2.GetDraftResponse] = field(default_factory=dict)

    def _answer(self, value: T) -> T:
        if self.down:
            raise Unavailable(Reason.UNAVAILABLE, "inference does not answer.")
        return value

    def list_served(self) -> tuple[inference_pb2.ServedSpecialist, ...]:
        provenance = inference_pb2.Provenance(generation=1, adapter_digest=ADAPTER, base="smollm2")
        return self._answer(
            tuple(inference_pb2.ServedSpecialist(name=name, provenance=provenance) for name in self.names)
        )

    def get_draft(self, draft_id: str) -> inference_pb2.GetDraftResponse:
        return self._answer(self.texts).get(draft_id, text("NOT_KEPT"))

    def ask(self, question: Question) -> ListStream[inference_pb2.StreamGenerateResponse]:
        self.asked.append(question)
        draft_id = BASE_DRAFT if question.model == "base" else DRAFT
        usage = inference_pb2.Usage(prompt_tokens=12, completion_tokens=4)
        pieces = [
            inference_pb2.StreamGenerateResponse(draft_id=draft_id, text="The findings "),
            inference_pb2.StreamGenerateResponse(draft_id=draft_id, text="follow.", finish_reason="stop", usage=usage),
        ]
        stream = ListStream(pieces, self.error)
        self.streams.append(stream)
        return stream


def text(state: str, *messages: tuple[str, str], answer: str = "") -> inference_pb2.GetDraftResponse:
    """A draft's stored text; messages are (role, content)."""
    return inference_pb2.GetDraftResponse(
        text_state=inference_pb2.TextState.Value(f"TEXT_STATE_{state}"),
        messages=[inference_pb2.Message(role=role, content=content) for role, content in messages],
        answer=answer,
    )


@dataclass
class World:
    """A console over services in memory."""

    registry: FakeRegistry = field(default_factory=FakeRegistry)
    training: FakeTraining = field(default_factory=FakeTraining)
    evaluation: FakeEvaluation = field(default_factory=FakeEvaluation)
    inference: FakeInference = field(default_factory=FakeInference)
    syntheses: FakeSyntheses = field(default_factory=FakeSyntheses)
    rows: FakeRows = field(default_factory=FakeRows)
    review: FakePassageReview = field(default_factory=FakePassageReview)
    near: synthetic_pb2.CountNearDuplicatesResponse | None = field(
        default_factory=lambda: synthetic_pb2.CountNearDuplicatesResponse(
            documents=100, compared=100, near_duplicates=7, groups=3, threshold=0.8
        )
    )
    unhealthy: set[str] = field(default_factory=set)
    submissions: dict[str, list[ingestion_pb2.Submission]] = field(default_factory=dict)
    asked_submissions: list[tuple[str, str]] = field(default_factory=list)

    def count_near_duplicates(self, specialist: str) -> synthetic_pb2.CountNearDuplicatesResponse:
        if self.near is None:
            raise Unavailable(Reason.UNAVAILABLE, "synthetic does not answer.")
        return self.near

    def get_submission(self, external_id: str, key_id: str) -> ingestion_pb2.GetSubmissionResponse:
        self.asked_submissions.append((external_id, key_id))
        if external_id not in self.submissions:
            raise NotFound(Reason.UNKNOWN_DOCUMENT, "Nothing was published under this id.")
        return ingestion_pb2.GetSubmissionResponse(submissions=self.submissions[external_id])

    def services(self) -> Services:
        return Services(
            catalogue=self.registry,
            decisions=self.registry,
            operations=self.registry,
            keys=self.registry,
            training=self.training,
            inference=self.inference,
            syntheses=self.syntheses,
            rows=self.rows,
            review=self.review,
            get_evaluation=self.evaluation.get,
            compare_evaluations=self.evaluation.compare,
            count_near_duplicates=self.count_near_duplicates,
            is_healthy=lambda service: service not in self.unhealthy,
            get_submission=self.get_submission,
        )

    def browser(self, base_url: str = "http://testserver") -> TestClient:
        app = create_app(settings(), self.services())
        return TestClient(app, base_url=base_url, follow_redirects=False, raise_server_exceptions=False)

    def key(self, role: Role, *specialists: str) -> str:
        """The secret of a new API key."""
        secret = f"tlr_{role.value}_{len(self.registry.visitors)}"
        digest = hashlib.sha256(secret.encode()).hexdigest()
        self.registry.visitors[digest] = Visitor(f"{role.value} key", role, frozenset(specialists), KEY, digest)
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


def csrf(browser: TestClient, path: str = "/login") -> str:
    """The CSRF token of a page's forms."""
    match = re.search(r'data-csrf="([^"]+)"', browser.get(path).text)
    assert match
    return match.group(1)


def sign_in(browser: TestClient, secret: str) -> None:
    """Sign in, and send the session's CSRF token with every later request."""
    answer = browser.post("/login", data={"secret": secret, "csrf": csrf(browser)})
    assert answer.status_code == 303, answer.text
    browser.headers["x-csrf-token"] = csrf(browser)
