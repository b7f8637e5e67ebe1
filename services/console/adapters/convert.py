"""From the services' messages to what the console shows."""

from dataclasses import replace
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from services.console.domain import Role, Visitor
from services.console.views import (
    Adapter,
    Arm,
    Canary,
    Dataset,
    Document,
    Draft,
    Erasure,
    Evaluated,
    Evaluation,
    Flow,
    KeptText,
    Key,
    Labels,
    Piece,
    Rejection,
    Replica,
    Served,
    Serving,
    Specialist,
    Threshold,
    Trace,
)
from tailor.api.common.v1 import common_pb2
from tailor.api.evaluation.v1 import evaluation_pb2
from tailor.api.events.v1 import documents_pb2, drafts_pb2, models_pb2
from tailor.api.inference.v1 import inference_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.errors import PermissionDenied, Reason
from tailor.rpc.auth import Caller

# What the gate allows where a specialist says nothing; the contract names it.
MAX_PARITY = 0.1
WAITING = {registry_pb2.DECISION_UNSPECIFIED: "waiting"}


def time(stamp: Timestamp) -> datetime | None:
    """The time in UTC; none for one that was not set."""
    return stamp.ToDatetime(tzinfo=UTC) if stamp.seconds or stamp.nanos else None


def word(name: str, prefix: str) -> str:
    """An enum value's name as a word: `RUN_STATE_QUEUED` is `queued`."""
    return name.removeprefix(prefix).lower().replace("_", " ")


def visitor(caller: Caller, secret_sha256: str) -> Visitor:
    """The holder of an API key; PermissionDenied for a role that is not known here, and for a key whose limits would not hold here: the
    console asks the services in its own name."""
    if caller.methods or caller.calls_per_minute:
        raise PermissionDenied(
            Reason.KEY_IS_LIMITED, "A key with methods or a rate is for systems; sign in with another."
        )
    name = word(caller.role, "ROLE_")
    if name not in set(Role):
        raise PermissionDenied(Reason.ROLE_NOT_ADMITTED, "This key's role may not use the console.")
    return Visitor(caller.name, Role(name), caller.specialists, caller.key_id, secret_sha256)


def labels(wire: common_pb2.Labels) -> Labels:
    """Labels."""
    return Labels(wire.source, wire.department, wire.confidentiality)


def document(wire: documents_pb2.DocumentAnonymized) -> Document:
    """A document."""
    return Document(
        document_id=wire.document_id,
        sequence=wire.version.sequence,
        kind=word(common_pb2.Kind.Name(wire.kind), "KIND_"),
        labels=labels(wire.labels),
        format=wire.format,
        char_count=wire.char_count,
        findings=dict(wire.findings),
        create_time=time(wire.create_time),
    )


def rejection(wire: documents_pb2.DocumentRejected) -> Rejection:
    """A rejected submission."""
    return Rejection(
        document_id=wire.document_id,
        stage=word(documents_pb2.Stage.Name(wire.stage), "STAGE_"),
        reason=documents_pb2.RejectionReason.Name(wire.reason).removeprefix("REJECTION_REASON_"),
        hint=wire.hint,
        duplicate_of=wire.duplicate_of,
        labels=labels(wire.labels),
        format=wire.format,
        create_time=time(wire.create_time),
    )


def catalogued(wire: registry_pb2.CatalogueDocument) -> Document | Rejection:
    """A document, or a rejected submission."""
    return rejection(wire.rejected) if wire.HasField("rejected") else document(wire.anonymized)


def flow(wire: registry_pb2.GetFlowResponse) -> Flow:
    """The counts."""
    return Flow(wire.ingested, wire.anonymized, dict(wire.rejected), dict(wire.findings), dict(wire.dead_lettered))


def dataset(wire: models_pb2.DatasetBuilt) -> Dataset:
    """A dataset."""
    return Dataset(
        digest=wire.digest,
        specialist=wire.specialist,
        kind=word(models_pb2.DatasetKind.Name(wire.kind), "DATASET_KIND_"),
        train_rows=wire.train_rows,
        held_out_rows=wire.held_out_rows,
        base=wire.base,
        recipe=wire.recipe,
        documents=len(wire.document_ids),
        create_time=time(wire.create_time),
    )


def evaluated(wire: models_pb2.AdapterEvaluated) -> Evaluated:
    """An evaluation's scores."""
    return Evaluated(
        evaluation_id=wire.evaluation_id,
        adapter_digest=wire.adapter_digest,
        dataset_digest=wire.dataset_digest,
        base=dict(wire.base.values),
        candidate=dict(wire.candidate.values),
        incumbent=dict(wire.incumbent.values),
        incumbent_digest=wire.incumbent_digest,
        incumbent_generation=wire.incumbent_generation,
        rows=wire.rows,
        create_time=time(wire.create_time),
    )


def evaluation(wire: evaluation_pb2.GetEvaluationResponse) -> Evaluation:
    """An evaluation with its report."""
    return Evaluation(
        evaluation_id=wire.evaluation_id,
        state=word(evaluation_pb2.EvaluationState.Name(wire.state), "EVALUATION_STATE_"),
        rows_done=wire.rows_done,
        rows_total=wire.rows_total,
        reason=wire.reason,
        result=evaluated(wire.result) if wire.HasField("result") else None,
        report_markdown=wire.report_markdown,
        plot_png=wire.plot_png,
    )


def trained(wire: models_pb2.AdapterTrained) -> Adapter:
    """An adapter alone."""
    return Adapter(
        digest=wire.digest,
        kind=word(models_pb2.AdapterKind.Name(wire.kind), "ADAPTER_KIND_"),
        specialist=wire.specialist,
        run_id=wire.run_id,
        dataset_digest=wire.dataset_digest,
        base=wire.base,
        parent_digest=wire.parent_digest,
        steps=wire.steps,
        first_loss=wire.first_loss,
        last_loss=wire.last_loss,
        tokens_per_second=wire.tokens_per_second,
        seconds=wire.seconds,
        create_time=time(wire.create_time),
        metrics=dict(wire.metrics),
    )


def adapter(wire: registry_pb2.CatalogueAdapter) -> Adapter:
    """An adapter and what is known of it."""
    decision = WAITING.get(wire.decision) or word(registry_pb2.Decision.Name(wire.decision), "DECISION_")
    return replace(
        trained(wire.adapter),
        evaluation=evaluated(wire.evaluation) if wire.HasField("evaluation") else None,
        decision=decision,
        refusals=tuple(wire.refusals),
        serving=wire.serving,
    )


def decided(wire: models_pb2.SpecialistServing) -> Serving:
    """What serves from now on."""
    return Serving(
        generation=wire.generation,
        adapter_digest=wire.adapter_digest,
        previous_digest=wire.previous_digest,
        create_time=time(wire.create_time),
    )


def serving(wire: registry_pb2.Serving) -> Serving:
    """What serves, and on which replicas."""
    replicas = tuple(Replica(item.replica, item.serving, item.reason, time(item.seen_time)) for item in wire.rollout)
    return replace(decided(wire.decision), replicas=replicas, finished=wire.finished)


def specialist(wire: registry_pb2.GetSpecialistResponse) -> Specialist:
    """A specialist and what serves it."""
    told = wire.specialist
    selection = {
        "source": tuple(told.selection.sources),
        "department": tuple(told.selection.departments),
        "confidentiality": tuple(told.selection.confidentialities),
    }
    return Specialist(
        name=told.name,
        revision=told.revision,
        description=told.description,
        base=told.base,
        recipe=told.recipe,
        selection=selection,
        min_new_items=told.rebuild.min_new_items,
        quiet_seconds=told.rebuild.quiet_seconds,
        min_interval_seconds=told.rebuild.min_interval_seconds,
        thresholds=tuple(
            Threshold(item.metric, item.min_gain_over_base, item.max_loss_to_incumbent) for item in told.gate.thresholds
        ),
        min_rows=told.gate.min_rows,
        max_parity=told.gate.max_parity or MAX_PARITY,
        house_terms=len(told.house_terms),
        use_teacher=told.use_teacher,
        keep_drafts=told.keep_drafts,
        private_prompts=told.private_prompts,
        preference_recipe=told.preference_recipe,
        filters=filters(told.filters),
        update_time=time(told.update_time),
        serving=serving(wire.serving) if wire.HasField("serving") else Serving(),
        canary=canary(wire.canary) if wire.HasField("canary") else None,
    )


def canary(wire: registry_pb2.Canary) -> Canary:
    """A canary and what was measured of both arms."""
    return Canary(
        adapter_digest=wire.adapter_digest,
        percent=wire.policy.percent,
        state=word(registry_pb2.CanaryState.Name(wire.state), "CANARY_STATE_"),
        reason=wire.reason,
        tried=arm(wire.canary),
        beside=arm(wire.incumbent),
        start_time=time(wire.start_time),
        end_time=time(wire.end_time),
    )


def arm(wire: registry_pb2.CanaryArm) -> Arm:
    """One arm's calls."""
    first = wire.first_token_seconds if wire.HasField("first_token_seconds") else None
    further = wire.token_seconds if wire.HasField("token_seconds") else None
    return Arm(wire.callers, wire.calls, wire.errors, first, further)


def filters(wire: models_pb2.Filters) -> tuple[tuple[str, str], ...]:
    """The filters that are set, each with what it admits."""
    found = (
        ("language", ", ".join(wire.languages)),
        ("characters", f"{wire.min_chars:,} or more" if wire.min_chars else ""),
        ("characters", f"{wire.max_chars:,} at most" if wire.max_chars else ""),
        ("boilerplate", f"in {wire.boilerplate_documents:,} documents" if wire.boilerplate_documents else ""),
        ("of one source", f"{wire.max_source_documents:,} documents" if wire.max_source_documents else ""),
        ("of one source", f"{wire.max_source_percent} % of the rows" if wire.max_source_percent else ""),
        ("of one judgement", f"{wire.max_pairs_per_judgement:,} pairs" if wire.max_pairs_per_judgement else ""),
    )
    return tuple((name, value) for name, value in found if value)


def draft(wire: drafts_pb2.DraftCreated) -> Draft:
    """A draft."""
    return Draft(
        draft_id=wire.draft_id,
        specialist=wire.specialist,
        generation=wire.generation,
        adapter_digest=wire.adapter_digest,
        dataset_digest=wire.dataset_digest,
        base=wire.base,
        prompt_tokens=wire.prompt_tokens,
        completion_tokens=wire.completion_tokens,
        finish_reason=wire.finish_reason,
        first_token_seconds=wire.first_token_seconds,
        seconds=wire.seconds,
        key_id=wire.key_id,
        create_time=time(wire.create_time),
    )


def trace(wire: registry_pb2.TraceResponse) -> Trace:
    """Where a draft came from."""
    return Trace(
        draft=draft(wire.draft),
        adapter=trained(wire.adapter) if wire.HasField("adapter") else None,
        dataset=dataset(wire.dataset) if wire.HasField("dataset") else None,
        documents=tuple(document(item) for item in wire.documents),
        evaluation=evaluated(wire.evaluation) if wire.HasField("evaluation") else None,
    )


def key(wire: registry_pb2.Key) -> Key:
    """An API key."""
    return Key(
        key_id=wire.key_id,
        name=wire.name,
        role=word(common_pb2.Role.Name(wire.role), "ROLE_"),
        specialists=tuple(wire.specialists),
        revoked=wire.revoked,
        methods=tuple(method.rpartition(".")[2] for method in wire.methods),
        calls_per_minute=wire.calls_per_minute,
        create_time=time(wire.create_time),
        expire_time=time(wire.expire_time),
    )


def erasure(wire: registry_pb2.Erasure) -> Erasure:
    """An erasure."""
    return Erasure(
        erasure_id=wire.erasure_id,
        document_ids=tuple(wire.document_ids),
        lifted=tuple(wire.lifted_document_ids),
        reason=wire.reason,
        waiting_for=tuple(wire.waiting_for),
        receipt=wire.receipt.body,
        signature=wire.receipt.signature.hex(),
        create_time=time(wire.create_time),
    )


def served(wire: inference_pb2.ServedSpecialist) -> Served:
    """What a name means."""
    what = wire.provenance
    return Served(wire.name, what.generation, what.adapter_digest, what.base, wire.context_length)


def kept_text(wire: inference_pb2.GetDraftResponse) -> KeptText:
    """What is kept of a draft's words."""
    state = word(inference_pb2.TextState.Name(wire.text_state), "TEXT_STATE_")
    return KeptText(state, tuple((turn.role, turn.content) for turn in wire.messages), wire.answer)


def piece(wire: inference_pb2.StreamGenerateResponse) -> Piece:
    """The next words."""
    return Piece(
        draft_id=wire.draft_id,
        text=wire.text,
        finish_reason=wire.finish_reason,
        prompt_tokens=wire.usage.prompt_tokens,
        completion_tokens=wire.usage.completion_tokens,
        generation=wire.provenance.generation,
        adapter_digest=wire.provenance.adapter_digest,
        base=wire.provenance.base,
    )
