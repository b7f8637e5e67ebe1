"""Translates the registry's messages to its domain and back, so that rules know no protobuf. A new field of a message is added here."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace

from services.registry.domain import (
    APPROVAL,
    AUTOMATIC,
    MARK,
    POLICY,
    RETIRE,
    Adapter,
    AdapterState,
    ApiKey,
    Call,
    Canary,
    CanaryPolicy,
    Decision,
    DecisionKind,
    DocumentState,
    Draft,
    DraftMark,
    Erasure,
    Evaluation,
    ForgottenBy,
    Gate,
    GivenJudgement,
    GuardMetric,
    Interval,
    Judgement,
    JudgementOutcome,
    JudgingPolicy,
    MetricIntervals,
    OperatorDecision,
    Outcome,
    PrimaryMetric,
    RebuildPolicy,
    Replica,
    ReplicaRollout,
    ScoredAdapter,
    Serving,
    ServingCanary,
    Specialist,
    Taint,
)
from services.registry.outcome_domain import DeliverableText
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import documents_pb2, drafts_pb2, models_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.rounds import RoundProgress
from tailor.storage.ref import Ref
from tailor.wire import (
    enum_name,
    from_datetime,
    from_evaluation_policy,
    from_filters,
    from_metric,
    from_ref,
    from_row_policy,
    from_sampling,
    from_selection,
    now,
    to_datetime,
    to_evaluation_policy,
    to_filters,
    to_judging_criterion,
    to_labels,
    to_metric,
    to_row_policy,
    to_sampling,
    to_selection,
)

CANARY_STATES = {
    Outcome.RUNNING: registry_pb2.CANARY_STATE_RUNNING,
    Outcome.FORWARD: registry_pb2.CANARY_STATE_FORWARD,
    Outcome.BACK: registry_pb2.CANARY_STATE_BACK,
    Outcome.ENDED: registry_pb2.CANARY_STATE_ENDED,
}
DECISIONS = {
    Decision.PASSED: registry_pb2.DECISION_PASSED,
    Decision.REFUSED: registry_pb2.DECISION_REFUSED,
    Decision.STALE: registry_pb2.DECISION_STALE,
    Decision.UNDECIDED: registry_pb2.DECISION_UNDECIDED,
}
OPERATOR_DECISIONS = {
    DecisionKind.OVERRIDE: registry_pb2.OPERATOR_DECISION_KIND_OVERRIDE,
    DecisionKind.APPROVAL: registry_pb2.OPERATOR_DECISION_KIND_APPROVAL,
    DecisionKind.DECLINE: registry_pb2.OPERATOR_DECISION_KIND_DECLINE,
    DecisionKind.DELETION: registry_pb2.OPERATOR_DECISION_KIND_DELETION,
}
OUTCOMES = {
    JudgementOutcome.RANKED: drafts_pb2.JUDGEMENT_OUTCOME_UNSPECIFIED,
    JudgementOutcome.TIE: drafts_pb2.JUDGEMENT_OUTCOME_TIE,
    JudgementOutcome.BOTH_BAD: drafts_pb2.JUDGEMENT_OUTCOME_BOTH_BAD,
}
ADAPTER_STATES = {state: registry_pb2.AdapterState.Value(f"ADAPTER_STATE_{state.name}") for state in AdapterState}


def to_specialist(message: models_pb2.SpecialistChanged) -> Specialist:
    rebuild = message.rebuild
    return Specialist(
        name=message.name,
        base=message.base,
        recipe=message.recipe,
        description=message.description,
        selection=to_selection(message.selection),
        rebuild=RebuildPolicy(
            rebuild.min_new_items, rebuild.quiet_seconds, rebuild.min_interval_seconds, rebuild.min_ranked_prompts
        ),
        gate=to_gate(message.gate),
        house_terms=tuple(message.house_terms),
        system_prompt=message.system_prompt,
        use_teacher=message.use_teacher,
        stages=tuple(message.stages),
        recipes=dict(message.recipes),
        keep_drafts=message.keep_drafts,
        private_prompts=message.private_prompts,
        filters=to_filters(message.filters),
        rows=to_row_policy(message.rows),
        canary=to_policy(message.canary, CanaryPolicy()) if message.HasField("canary") else None,
        on_erasure=RETIRE if message.on_erasure == models_pb2.ON_ERASURE_RETIRE else MARK,
        sampling=to_sampling(message.sampling),
        promotion=APPROVAL if message.promotion == models_pb2.PROMOTION_MODE_APPROVAL else AUTOMATIC,
        metrics=tuple(map(to_metric, message.metrics)),
        evaluation=to_evaluation_policy(message.evaluation),
        monthly_budget=message.monthly_budget,
        max_training_hours=message.max_training_hours,
        judging=to_judging_policy(message.judging),
        knowledge_sources=tuple(message.knowledge_sources),
        revision=message.revision,
        update_time=to_datetime(message.update_time) if message.HasField("update_time") else None,
        deleted=message.deleted,
    )


def to_judging_policy(message: models_pb2.JudgingPolicy) -> JudgingPolicy:
    default = JudgingPolicy()
    share = message.overlap_share if message.HasField("overlap_share") else default.overlap_share
    criteria = tuple(map(to_judging_criterion, message.criteria))
    draws = message.draw_prompts if message.HasField("draw_prompts") else default.draw_prompts
    return JudgingPolicy(share, message.experts or default.experts, message.drafts or default.drafts, criteria, draws)


def from_specialist(specialist: Specialist) -> models_pb2.SpecialistChanged:
    retires, waits = specialist.on_erasure == RETIRE, specialist.promotion == APPROVAL
    return models_pb2.SpecialistChanged(
        name=specialist.name,
        revision=specialist.revision,
        description=specialist.description,
        base=specialist.base,
        recipe=specialist.recipe,
        selection=from_selection(specialist.selection),
        rebuild=models_pb2.RebuildPolicy(**asdict(specialist.rebuild)),
        gate=_from_gate(specialist.gate),
        house_terms=specialist.house_terms,
        system_prompt=specialist.system_prompt,
        use_teacher=specialist.use_teacher,
        stages=specialist.stages,
        recipes=specialist.recipes,
        keep_drafts=specialist.keep_drafts,
        private_prompts=specialist.private_prompts,
        filters=from_filters(specialist.filters),
        rows=from_row_policy(specialist.rows),
        canary=models_pb2.CanaryPolicy(**asdict(specialist.canary)) if specialist.canary else None,
        on_erasure=models_pb2.ON_ERASURE_RETIRE if retires else models_pb2.ON_ERASURE_MARK,
        sampling=from_sampling(specialist.sampling),
        promotion=models_pb2.PROMOTION_MODE_APPROVAL if waits else models_pb2.PROMOTION_MODE_AUTOMATIC,
        metrics=map(from_metric, specialist.metrics),
        evaluation=from_evaluation_policy(specialist.evaluation),
        monthly_budget=specialist.monthly_budget,
        max_training_hours=specialist.max_training_hours,
        judging=models_pb2.JudgingPolicy(**asdict(specialist.judging)),
        knowledge_sources=specialist.knowledge_sources,
        update_time=from_datetime(specialist.update_time),
        deleted=specialist.deleted,
    )


def to_gate(message: models_pb2.Gate) -> Gate:
    """A gate; limits of suites that are not set are None."""
    primary = message.primary
    return Gate(
        primary=PrimaryMetric(primary.metric, primary.min_gain, primary.min_gain_over_incumbent),
        guards=tuple(GuardMetric(item.metric, item.margin) for item in message.guards),
        beat=tuple(message.beat),
        min_rows=message.min_rows,
        max_parity=message.max_parity,
        max_forgetting=message.max_forgetting if message.HasField("max_forgetting") else None,
        max_refusal_drop=message.max_refusal_drop if message.HasField("max_refusal_drop") else None,
        max_memorised=message.max_memorised if message.HasField("max_memorised") else None,
    )


def _from_gate(gate: Gate) -> models_pb2.Gate:
    return models_pb2.Gate(
        primary=models_pb2.PrimaryMetric(**asdict(gate.primary)),
        guards=[models_pb2.Guard(**asdict(guard)) for guard in gate.guards],
        beat=gate.beat,
        min_rows=gate.min_rows,
        max_parity=gate.max_parity,
        max_forgetting=gate.max_forgetting,
        max_refusal_drop=gate.max_refusal_drop,
        max_memorised=gate.max_memorised,
    )


def to_serving(message: models_pb2.SpecialistServing) -> Serving:
    return Serving(
        specialist=message.specialist,
        generation=message.generation,
        adapter_digest=message.adapter_digest,
        manifest=_to_ref(message.manifest) if message.HasField("manifest") else None,
        dataset_digest=message.dataset_digest,
        base=message.base,
        previous_digest=message.previous_digest,
        system_prompt=message.system_prompt,
        private_prompts=message.private_prompts,
        canary=_to_serving_canary(message.canary) if message.HasField("canary") else None,
        ended=message.ended,
        overridden=message.overridden,
    )


def from_serving(serving: Serving) -> models_pb2.SpecialistServing:
    return models_pb2.SpecialistServing(
        specialist=serving.specialist,
        generation=serving.generation,
        adapter_digest=serving.adapter_digest,
        manifest=from_ref(serving.manifest) if serving.manifest else None,
        dataset_digest=serving.dataset_digest,
        base=serving.base,
        previous_digest=serving.previous_digest,
        system_prompt=serving.system_prompt,
        private_prompts=serving.private_prompts,
        canary=_from_serving_canary(serving.canary) if serving.canary else None,
        ended=serving.ended,
        overridden=serving.overridden,
        create_time=now(),
    )


def _to_serving_canary(message: models_pb2.ServingCanary) -> ServingCanary:
    return ServingCanary(
        adapter_digest=message.adapter_digest,
        manifest=_to_ref(message.manifest),
        dataset_digest=message.dataset_digest,
        system_prompt=message.system_prompt,
        percent=message.percent,
    )


def _from_serving_canary(canary: ServingCanary) -> models_pb2.ServingCanary:
    return models_pb2.ServingCanary(
        adapter_digest=canary.adapter_digest,
        manifest=from_ref(canary.manifest),
        dataset_digest=canary.dataset_digest,
        system_prompt=canary.system_prompt,
        percent=canary.percent,
    )


def _to_ref(message: common_pb2.ObjectRef) -> Ref:
    # Accepts a reference without a URI: the registry never reads the object, and an erasure must be able to read every stored fact.
    return Ref(message.uri, message.sha256, message.size_bytes)


def to_policy(message: models_pb2.CanaryPolicy, defaults: CanaryPolicy) -> CanaryPolicy:
    """A canary's policy; fields that are not set are those of `defaults`."""
    increase = message.max_error_rate_increase if message.HasField("max_error_rate_increase") else None
    return CanaryPolicy(
        percent=message.percent or defaults.percent,
        min_calls=message.min_calls or defaults.min_calls,
        max_seconds=message.max_seconds or defaults.max_seconds,
        max_error_rate_increase=defaults.max_error_rate_increase if increase is None else increase,
        max_latency_ratio=message.max_latency_ratio or defaults.max_latency_ratio,
        outcome=message.outcome or defaults.outcome,
        min_reports=message.min_reports or defaults.min_reports,
        max_outcome_loss=message.max_outcome_loss or defaults.max_outcome_loss,
    )


def from_canary(canary: Canary) -> registry_pb2.Canary:
    return registry_pb2.Canary(
        adapter_digest=canary.adapter_digest,
        generation=canary.generation,
        policy=models_pb2.CanaryPolicy(**asdict(canary.policy)),
        state=CANARY_STATES[canary.outcome],
        reason=canary.reason,
        start_time=from_datetime(canary.start_time),
        end_time=from_datetime(canary.end_time),
        canary=registry_pb2.CanaryArm(**asdict(canary.canary_arm)),
        incumbent=registry_pb2.CanaryArm(**asdict(canary.incumbent_arm)),
    )


def from_decision(decision: OperatorDecision) -> registry_pb2.OperatorDecision:
    verdict = decision.verdict
    return registry_pb2.OperatorDecision(
        kind=OPERATOR_DECISIONS[decision.kind],
        specialist=decision.specialist,
        adapter_digest=decision.adapter_digest,
        key_id=decision.grounds.key_id,
        reason=decision.grounds.reason,
        generation=decision.generation,
        verdict=DECISIONS[verdict.decision] if verdict else registry_pb2.DECISION_UNSPECIFIED,
        verdict_reasons=verdict.reasons if verdict else (),
        create_time=from_datetime(decision.create_time),
    )


def to_adapter(message: models_pb2.AdapterTrained) -> Adapter:
    return Adapter(
        digest=message.digest,
        kind=POLICY if message.kind == models_pb2.ADAPTER_KIND_POLICY else "reward",
        specialist=message.specialist,
        manifest=_to_ref(message.manifest),
        dataset_digest=message.dataset_digest,
        base=message.base,
        parent_digest=message.parent_digest,
        reward_digest=message.reward_adapter_digest,
        base_adapter_digest=message.base_adapter_digest,
        size_bytes=message.size_bytes,
        create_time=to_datetime(message.create_time) if message.HasField("create_time") else None,
    )


def to_evaluation(message: models_pb2.AdapterEvaluated) -> Evaluation:
    return Evaluation(
        evaluation_id=message.evaluation_id,
        adapter_digest=message.adapter_digest,
        specialist=message.specialist,
        rows=message.rows,
        metrics=_to_figures(message.metrics),
        suites=_to_figures(message.suites),
        incumbent_generation=message.incumbent_generation,
        incumbent_digest=message.incumbent_digest,
        held_out_rows=message.held_out_rows,
        held_out_pairs=message.held_out_pairs or message.pairs,
        not_measured=dict(message.not_measured),
        preferences=message.preference_dataset_digest,
        incumbent_preferences=message.incumbent_preference_dataset_digest,
        payload=message.SerializeToString(deterministic=True),
    )


def _to_figures(messages: Iterable[models_pb2.MetricFigures]) -> dict[str, MetricIntervals]:
    return {
        item.metric: MetricIntervals(item.metric, _to_estimates(item.models), _to_estimates(item.gains))
        for item in messages
    }


def _to_estimates(messages: Mapping[str, models_pb2.Estimate]) -> dict[str, Interval]:
    return {model: Interval(item.value, item.low, item.high, item.rows) for model, item in messages.items()}


def to_scored_adapter(message: models_pb2.AdapterEvaluated) -> ScoredAdapter:
    return ScoredAdapter(message.specialist, message.adapter_digest, to_datetime(message.create_time))


def to_replica(message: models_pb2.ReplicaSeen) -> Replica:
    return Replica(message.replica, message.base, to_datetime(message.create_time), message.leaving)


def from_rollout(entry: ReplicaRollout) -> registry_pb2.ReplicaState:
    return registry_pb2.ReplicaState(
        replica=entry.replica.name,
        serving=entry.serving,
        reason=entry.refusal,
        seen_time=from_datetime(entry.replica.seen_time),
    )


def to_draft(message: drafts_pb2.DraftCreated) -> Draft:
    return Draft(
        draft_id=message.draft_id,
        specialist=message.specialist,
        adapter_digest=message.adapter_digest,
        dataset_digest=message.dataset_digest,
        key_id=message.key_id,
        prompt_digest=message.prompt_digest,
        answer_digest=message.answer_digest,
        text=_to_ref(message.text) if message.HasField("text") else None,
        generation=message.generation,
        create_time=to_datetime(message.create_time) if message.HasField("create_time") else None,
        edit_of=message.edit_of,
        compute_seconds=message.compute_seconds,
        compute_device=message.compute_device,
        drawn_from=tuple(message.drawn_from),
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
    """A judgement; one from before marks were recorded has the marks of its rubric."""
    judgement = Judgement(
        message.judgement_id,
        message.specialist,
        tuple(message.ranking),
        _to_marks(message.marks),
        message.comment,
        to_datetime(message.create_time),
        expert_id=message.expert_id,
        outcome=to_outcome(message.outcome),
        equal=tuple(message.equal_drafts),
        edited=message.edited,
        places=tuple(message.places),
    )
    return judgement if judgement.marks else replace(judgement, marks=_to_rubric(message.rubric, judgement.best_draft))


def to_given_judgement(request: registry_pb2.RecordJudgementRequest) -> GivenJudgement:
    return GivenJudgement(
        tuple(request.ranking),
        (*_to_marks(request.marks), *_to_rubric(request.rubric, "")),
        request.comment,
        to_outcome(request.outcome),
        tuple(request.places),
        request.seconds,
    )


def _to_marks(marks: Iterable[drafts_pb2.DraftMark]) -> tuple[DraftMark, ...]:
    return tuple(DraftMark(mark.draft_id, mark.criterion, mark.mark) for mark in marks)


def _to_rubric(rubric: drafts_pb2.Rubric, draft_id: str) -> tuple[DraftMark, ...]:
    """The marks of a rubric, for a draft."""
    return tuple(DraftMark(draft_id, field.name, mark) for field, mark in rubric.ListFields())


def _from_rubric(judgement: Judgement) -> drafts_pb2.Rubric:
    """The marks of the best draft that a rubric has."""
    known = drafts_pb2.Rubric.DESCRIPTOR.fields_by_name
    best_marks = (mark for mark in judgement.marks if mark.draft_id == judgement.best_draft)
    return drafts_pb2.Rubric(**{mark.criterion: mark.mark for mark in best_marks if mark.criterion in known})


def to_outcome(outcome: drafts_pb2.JudgementOutcome.ValueType) -> JudgementOutcome:
    return next((key for key, value in OUTCOMES.items() if value == outcome), JudgementOutcome.RANKED)


def from_judgement(judgement: Judgement) -> drafts_pb2.JudgementRecorded:
    return drafts_pb2.JudgementRecorded(
        judgement_id=judgement.judgement_id,
        specialist=judgement.specialist,
        ranking=judgement.ranking,
        rubric=_from_rubric(judgement),
        marks=[drafts_pb2.DraftMark(**asdict(mark)) for mark in judgement.marks],
        places=judgement.places,
        comment=judgement.comment,
        create_time=from_datetime(judgement.create_time),
        round=from_round(judgement.round) if judgement.round else None,
        expert_id=judgement.expert_id,
        outcome=OUTCOMES[judgement.outcome],
        equal_drafts=judgement.equal,
        edited=judgement.edited,
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
    return registry_pb2.Key(
        key_id=key.key_id,
        name=key.name,
        role=common_pb2.Role.Value(key.role),
        specialists=key.specialists,
        revoked=key.revoked,
        create_time=from_datetime(key.create_time),
        expire_time=from_datetime(key.expire_time),
        methods=key.methods,
        calls_per_minute=key.calls_per_minute,
        created_by=key.created_by,
    )


def ingested_state(message: documents_pb2.DocumentIngested) -> DocumentState:
    """Without the reference into quarantine, which is not stored."""
    return DocumentState(message.submission_id, message.document_id, "ingested")


def anonymized_state(message: documents_pb2.DocumentAnonymized) -> DocumentState:
    return DocumentState(
        submission_id=message.submission_id,
        document_id=message.document_id,
        state="anonymized",
        payload=message.SerializeToString(deterministic=True),
        sequence=message.version.sequence,
        labels=to_labels(message.labels),
        findings=dict(message.findings),
        removed=dict(message.removed),
        format=message.format,
        language=message.language,
        char_count=message.char_count,
        digest=message.version.digest,
        text_sha256=message.text.sha256,
        supersede_id=message.supersede_id,
    )


def to_deliverable(message: documents_pb2.DocumentAnonymized) -> DeliverableText:
    return DeliverableText(
        document_id=message.document_id,
        draft_id=message.draft_id,
        text=_to_ref(message.text),
        create_time=to_datetime(message.create_time),
    )


def rejected_state(message: documents_pb2.DocumentRejected) -> DocumentState:
    return DocumentState(
        submission_id=message.submission_id,
        document_id=message.document_id,
        state="rejected",
        payload=message.SerializeToString(deterministic=True),
        labels=to_labels(message.labels),
        reason=enum_name(documents_pb2.RejectionReason, message.reason, "REJECTION_REASON_"),
        format=message.format,
        stage=enum_name(documents_pb2.Stage, message.stage, "STAGE_").lower(),
        sequence=message.version.sequence,
        digest=message.version.digest,
        supersede_id=message.supersede_id,
    )


def to_answer(message: documents_pb2.DocumentForgotten) -> ForgottenBy:
    return ForgottenBy(
        message.erasure_id, message.document_id, message.service, dict(message.counts), tuple(message.dataset_digests)
    )


def from_erasure(erasure: Erasure) -> registry_pb2.Erasure:
    return registry_pb2.Erasure(
        erasure_id=erasure.erasure_id,
        document_ids=erasure.document_ids,
        lifted_document_ids=erasure.lifted,
        reason=erasure.reason,
        waiting_for=erasure.waiting_for,
        receipt=registry_pb2.Receipt(**asdict(erasure.receipt)) if erasure.receipt else None,
        create_time=from_datetime(erasure.create_time),
    )


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
