"""Messages of the services, as the console gets them."""

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import documents_pb2, drafts_pb2, models_pb2
from tailor.api.registry.v1 import audit_pb2, registry_pb2
from tailor.api.training.v1 import training_pb2
from tailor.rpc.channel import CallStream
from tailor.wire import from_datetime
from tests.evaluations import make_definitions, make_estimate, make_evaluated, make_figures

T = TypeVar("T")
M = TypeVar("M", bound=Message)
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


class ListStream(CallStream[T], Generic[T]):
    """A stream of the given items."""

    def __init__(self, items: Sequence[T]) -> None:
        self.items = items
        self.closed = False

    def __iter__(self) -> Iterator[T]:
        yield from self.items

    def cancel(self) -> None:
        self.closed = True


class EndlessStream(CallStream[T], Generic[T]):
    """The same item until it is cancelled, `pause` seconds apart."""

    def __init__(self, item: T, pause: float = 0.05) -> None:
        self.closed = threading.Event()
        self._item = item
        self._pause = pause

    def __iter__(self) -> Iterator[T]:
        yield self._item
        while not self.closed.wait(self._pause):
            yield self._item

    def cancel(self) -> None:
        self.closed.set()


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
        costs=[models_pb2.ModelCost(model="candidate", answers=48, cut_answers=3)],
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
        pipeline=[models_pb2.PipelineStage(stage="sft", recipe="sft-lora")],
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
        audit_pb2.AuditGroup(value="sharepoint", documents=90, characters=90_000, findings=180, new_documents=12),
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
                skipped=[audit_pb2.AuditSkipped(reason="no_words", documents=2, characters=5_000)],
            )
        ],
        estimate=audit_pb2.AuditEstimate(tokens=25_000, tokens_per_second=250.0, run_id=RUN, seconds=100.0),
        create_time=STAMP,
    )
