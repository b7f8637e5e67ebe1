"""Translates the registry's messages to its domain and back where their fields differ; `tailor.codec` does the rest."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from services.registry.domain import (
    POLICY,
    Adapter,
    AdapterState,
    ApiKey,
    Call,
    Canary,
    Decision,
    DocumentState,
    DraftMark,
    Erasure,
    Evaluation,
    Fact,
    FactKind,
    ForgottenBy,
    GivenJudgement,
    Judgement,
    JudgementOutcome,
    MetricIntervals,
    OperatorDecision,
    Outcome,
    Replica,
    ReplicaRollout,
    Serving,
    Specialist,
    Taint,
)
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import documents_pb2, drafts_pb2, models_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.codec import decode, encode
from tailor.columns import list_values, word
from tailor.list_columns import join_labels
from tailor.pipelines import PipelineStage, describe_pipeline
from tailor.rounds import RoundProgress
from tailor.wire import (
    enum_name,
    from_datetime,
    now,
    to_datetime,
    to_metric,
    to_pipeline,
)

CANARY_STATES = {outcome: registry_pb2.CanaryState.Value(f"CANARY_STATE_{outcome.name}") for outcome in Outcome}
DECISIONS = {decision: registry_pb2.Decision.Value(f"DECISION_{decision.name}") for decision in Decision}
OUTCOMES = {
    JudgementOutcome.RANKED: drafts_pb2.JUDGEMENT_OUTCOME_UNSPECIFIED,
    JudgementOutcome.TIE: drafts_pb2.JUDGEMENT_OUTCOME_TIE,
    JudgementOutcome.BOTH_BAD: drafts_pb2.JUDGEMENT_OUTCOME_BOTH_BAD,
}
ADAPTER_STATES = {state: registry_pb2.AdapterState.Value(f"ADAPTER_STATE_{state.name}") for state in AdapterState}


def to_specialist(message: models_pb2.SpecialistChanged) -> Specialist:
    return decode(Specialist, message, metrics=tuple(map(to_metric, message.metrics)))


def from_specialist(specialist: Specialist) -> models_pb2.SpecialistChanged:
    return encode(models_pb2.SpecialistChanged, specialist)


def from_serving(serving: Serving) -> models_pb2.SpecialistServing:
    return encode(models_pb2.SpecialistServing, serving, create_time=now())


def from_canary(canary: Canary) -> registry_pb2.Canary:
    arms = {"canary": canary.canary_arm, "incumbent": canary.incumbent_arm}
    messages = {name: encode(registry_pb2.CanaryArm, arm) for name, arm in arms.items()}
    return encode(registry_pb2.Canary, canary, state=CANARY_STATES[canary.outcome], **messages)


def from_decision(decision: OperatorDecision) -> registry_pb2.OperatorDecision:
    verdict = decision.verdict
    return encode(
        registry_pb2.OperatorDecision,
        decision,
        key_id=decision.justification.key_id,
        reason=decision.justification.reason,
        verdict=DECISIONS[verdict.decision] if verdict else registry_pb2.DECISION_UNSPECIFIED,
        verdict_reasons=verdict.reasons if verdict else (),
    )


def to_adapter(message: models_pb2.AdapterTrained) -> Adapter:
    kind = POLICY if message.kind == models_pb2.ADAPTER_KIND_POLICY else "reward"
    return decode(Adapter, message, kind=kind, reward_digest=message.reward_adapter_digest)


def to_evaluation(message: models_pb2.AdapterEvaluated) -> Evaluation:
    return decode(
        Evaluation,
        message,
        metrics={item.metric: decode(MetricIntervals, item) for item in message.metrics},
        suites={item.metric: decode(MetricIntervals, item) for item in message.suites},
        preferences=message.preference_dataset_digest,
        incumbent_preferences=message.incumbent_preference_dataset_digest,
        payload=message.SerializeToString(deterministic=True),
    )


def to_replica(message: models_pb2.ReplicaSeen) -> Replica:
    return decode(Replica, message, name=message.replica, seen_time=to_datetime(message.create_time))


def from_rollout(entry: ReplicaRollout) -> registry_pb2.ReplicaState:
    return registry_pb2.ReplicaState(
        replica=entry.replica.name,
        serving=entry.serving,
        reason=entry.refusal,
        seen_time=from_datetime(entry.replica.seen_time),
    )


def to_call(message: drafts_pb2.DraftCreated) -> Call | None:
    """A draft as a call of a canary's arm; None if it was cancelled, its prompt drawn, the base answered, or an expert wrote it."""
    if not message.specialist or message.finish_reason == "cancelled" or message.edit_of or message.drawn_from:
        return None
    failed, tokens = message.finish_reason == "error", message.completion_tokens
    answered = not failed and tokens > 0
    first = message.first_token_seconds
    return Call(
        draft_id=message.draft_id,
        specialist=message.specialist,
        generation=message.generation,
        canary=message.canary,
        failed=failed,
        key_id=message.key_id,
        first_token_seconds=first if answered else None,
        token_seconds=(message.seconds - first) / (tokens - 1) if answered and tokens > 1 else None,
    )


def to_judgement(message: drafts_pb2.JudgementRecorded) -> Judgement:
    return decode(Judgement, message, equal=tuple(message.equal_drafts), round=None)


def to_given_judgement(request: registry_pb2.RecordJudgementRequest) -> GivenJudgement:
    judgement = decode(GivenJudgement, request)
    return replace(judgement, marks=(*judgement.marks, *_to_rubric(request.rubric)))


def _to_rubric(rubric: drafts_pb2.Rubric) -> tuple[DraftMark, ...]:
    """The marks of a rubric, for the best draft."""
    return tuple(DraftMark("", field.name, mark) for field, mark in rubric.ListFields())


def _from_rubric(judgement: Judgement) -> drafts_pb2.Rubric:
    """The marks of the best draft that a rubric has."""
    known = drafts_pb2.Rubric.DESCRIPTOR.fields_by_name
    best_marks = (mark for mark in judgement.marks if mark.draft_id == judgement.best_draft)
    return drafts_pb2.Rubric(**{mark.criterion: mark.mark for mark in best_marks if mark.criterion in known})


def from_judgement(judgement: Judgement) -> drafts_pb2.JudgementRecorded:
    return encode(
        drafts_pb2.JudgementRecorded,
        judgement,
        rubric=_from_rubric(judgement),
        round=from_round(judgement.round) if judgement.round else None,
        outcome=OUTCOMES[judgement.outcome],
        equal_drafts=judgement.equal,
    )


def from_retracted(judgement: Judgement, progress: RoundProgress | None) -> drafts_pb2.JudgementRecorded:
    """A judgement that its expert took back, with the progress without it."""
    return drafts_pb2.JudgementRecorded(
        judgement_id=judgement.judgement_id,
        specialist=judgement.specialist,
        create_time=now(),
        expert_id=judgement.expert_id,
        retracted=True,
        round=from_round(progress) if progress else None,
    )


def from_round(progress: RoundProgress) -> drafts_pb2.RoundProgress:
    return drafts_pb2.RoundProgress(
        prompts=progress.prompts,
        held_out_prompts=progress.held_out,
        needed_prompts=progress.needed,
        needed_held_out_prompts=progress.needed_held_out,
        missing_prompts=progress.missing,
        sentence=progress.sentence,
    )


def from_key(key: ApiKey) -> registry_pb2.Key:
    return encode(registry_pb2.Key, key, role=common_pb2.Role.Value(key.role))


def ingested_state(message: documents_pb2.DocumentIngested) -> DocumentState:
    """Without the reference into quarantine, which is not stored."""
    return DocumentState(message.submission_id, message.document_id, "ingested")


def anonymized_state(message: documents_pb2.DocumentAnonymized) -> DocumentState:
    return decode(
        DocumentState,
        message,
        state="anonymized",
        payload=message.SerializeToString(deterministic=True),
        sequence=message.version.sequence,
        digest=message.version.digest,
        text_sha256=message.text.sha256,
    )


def rejected_state(message: documents_pb2.DocumentRejected) -> DocumentState:
    return decode(
        DocumentState,
        message,
        state="rejected",
        payload=message.SerializeToString(deterministic=True),
        reason=enum_name(documents_pb2.RejectionReason, message.reason, "REJECTION_REASON_"),
        stage=enum_name(documents_pb2.Stage, message.stage, "STAGE_").lower(),
        sequence=message.version.sequence,
        digest=message.version.digest,
    )


def to_answer(message: documents_pb2.DocumentForgotten) -> ForgottenBy:
    return decode(ForgottenBy, message, datasets=tuple(message.dataset_digests))


def from_erasure(erasure: Erasure) -> registry_pb2.Erasure:
    return encode(registry_pb2.Erasure, erasure, lifted_document_ids=erasure.lifted)


def from_erased(
    erasure_id: str,
    document_id: str,
    datasets: Sequence[str],
    taints: Sequence[Taint],
    superseded_by: tuple[int, str] | None = None,
) -> documents_pb2.DocumentErased:
    """`superseded_by` is the sequence and digest of the version of a document that stays."""
    version = common_pb2.Version(sequence=superseded_by[0], digest=superseded_by[1]) if superseded_by else None
    return documents_pb2.DocumentErased(
        document_id=document_id,
        erasure_id=erasure_id,
        dataset_digests=datasets,
        adapter_digests=[taint.adapter_digest for taint in taints],
        retired_adapter_digests=[taint.adapter_digest for taint in taints if taint.retired],
        create_time=now(),
        superseded_by=version,
    )


def from_lifted(erasure_id: str, document_id: str) -> documents_pb2.DocumentErased:
    return documents_pb2.DocumentErased(document_id=document_id, erasure_id=erasure_id, lifted=True, create_time=now())


def list_specialist(message: models_pb2.SpecialistChanged) -> dict[str, Any]:
    """The columns by which specialists are listed."""
    promotion = message.promotion or models_pb2.PROMOTION_MODE_AUTOMATIC
    mode = word(models_pb2.PromotionMode.DESCRIPTOR, promotion)
    return list_values(
        registry_pb2.ListSpecialistsRequest, message, pipeline=describe_pipeline(to_pipeline(message)), promotion=mode
    )


def what_serves(item: registry_pb2.GetSpecialistResponse) -> str:
    """`adapter`, `overridden` (an adapter despite the gate), `base` or `nothing`."""
    decision = item.serving.decision
    if decision.adapter_digest:
        return "overridden" if decision.overridden else "adapter"
    return "base" if decision.generation and not decision.ended else "nothing"


def list_fact(fact: Fact) -> dict[str, Any]:
    """The columns by which datasets and adapters are listed; none of other facts."""
    if fact.kind is FactKind.ADAPTER:
        return list_values(registry_pb2.ListAdaptersRequest, models_pb2.AdapterTrained.FromString(fact.payload))
    if fact.kind is not FactKind.DATASET:
        return {}
    message = models_pb2.DatasetBuilt.FromString(fact.payload)
    stages = [PipelineStage(stage.stage, stage.recipe) for stage in message.pipeline]
    return list_values(registry_pb2.ListDatasetsRequest, message, pipeline=describe_pipeline(stages))


def list_document(state: DocumentState) -> dict[str, Any]:
    """The columns by which documents and rejected submissions are listed; empty for other states."""
    if state.state not in {"anonymized", "rejected"}:
        return {"listed": {}, "searched": ""}
    cls = documents_pb2.DocumentAnonymized if state.state == "anonymized" else documents_pb2.DocumentRejected
    message = cls.FromString(state.payload)
    return list_values(
        registry_pb2.ListDocumentsRequest,
        message,
        sequence=state.sequence,
        labels=join_labels(message.labels),
        findings=" ".join(state.findings),
        personal_values=sum(state.findings.values()),
    )
