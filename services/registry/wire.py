"""Between wire messages and the domain."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from services.registry import comparing, domain
from services.registry.comparing import Arm, Call, Canary, CanaryRules
from services.registry.filters import Filters
from services.registry.gate import Evaluation, Gate, Threshold
from services.registry.rollouts import Reached, Replica
from services.registry.serving import Serving, ServingCanary
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import documents_pb2, drafts_pb2, models_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.storage.ref import Ref

CANARY_STATES = {
    comparing.Outcome.RUNNING: registry_pb2.CANARY_STATE_RUNNING,
    comparing.Outcome.FORWARD: registry_pb2.CANARY_STATE_FORWARD,
    comparing.Outcome.BACK: registry_pb2.CANARY_STATE_BACK,
    comparing.Outcome.ENDED: registry_pb2.CANARY_STATE_ENDED,
}


def timestamp(moment: datetime | None) -> Timestamp | None:
    """A moment for the wire; absent stays absent."""
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def to_specialist(message: models_pb2.SpecialistChanged) -> domain.Specialist:
    """A definition from the wire."""
    gate = Gate(
        tuple(
            Threshold(threshold.metric, threshold.min_gain_over_base, threshold.max_loss_to_incumbent)
            for threshold in message.gate.thresholds
        ),
        message.gate.min_rows,
        message.gate.max_parity,
    )
    selection, rebuild = message.selection, message.rebuild
    return domain.Specialist(
        name=message.name,
        base=message.base,
        recipe=message.recipe,
        description=message.description,
        selection=domain.Selection(
            tuple(selection.sources), tuple(selection.departments), tuple(selection.confidentialities)
        ),
        rebuild=domain.RebuildPolicy(rebuild.min_new_items, rebuild.quiet_seconds, rebuild.min_interval_seconds),
        gate=gate,
        house_terms=tuple(message.house_terms),
        system_prompt=message.system_prompt,
        use_teacher=message.use_teacher,
        preference_recipe=message.preference_recipe,
        keep_drafts=message.keep_drafts,
        private_prompts=message.private_prompts,
        filters=to_filters(message.filters),
        canary=to_rules(message.canary, CanaryRules()) if message.HasField("canary") else None,
        on_erasure=domain.RETIRE if message.on_erasure == models_pb2.ON_ERASURE_RETIRE else domain.MARK,
        revision=message.revision,
        update_time=message.update_time.ToDatetime(UTC) if message.HasField("update_time") else None,
    )


def to_filters(message: models_pb2.Filters) -> Filters:
    """A specialist's filters from the wire."""
    return Filters(
        languages=tuple(message.languages),
        min_chars=message.min_chars,
        max_chars=message.max_chars,
        boilerplate_documents=message.boilerplate_documents,
        max_source_documents=message.max_source_documents,
        max_source_percent=message.max_source_percent,
        max_pairs_per_judgement=message.max_pairs_per_judgement,
    )


def from_specialist(specialist: domain.Specialist) -> models_pb2.SpecialistChanged:
    """A definition for the wire."""
    thresholds = [
        models_pb2.Threshold(
            metric=threshold.metric,
            min_gain_over_base=threshold.min_gain_over_base,
            max_loss_to_incumbent=threshold.max_loss_to_incumbent,
        )
        for threshold in specialist.gate.thresholds
    ]
    selection, rebuild = specialist.selection, specialist.rebuild
    return models_pb2.SpecialistChanged(
        name=specialist.name,
        revision=specialist.revision,
        description=specialist.description,
        base=specialist.base,
        recipe=specialist.recipe,
        selection=models_pb2.Selection(
            sources=selection.sources, departments=selection.departments, confidentialities=selection.confidentialities
        ),
        rebuild=models_pb2.RebuildPolicy(
            min_new_items=rebuild.min_new_items,
            quiet_seconds=rebuild.quiet_seconds,
            min_interval_seconds=rebuild.min_interval_seconds,
        ),
        gate=models_pb2.Gate(
            thresholds=thresholds, min_rows=specialist.gate.min_rows, max_parity=specialist.gate.max_parity
        ),
        house_terms=specialist.house_terms,
        system_prompt=specialist.system_prompt,
        use_teacher=specialist.use_teacher,
        preference_recipe=specialist.preference_recipe,
        keep_drafts=specialist.keep_drafts,
        private_prompts=specialist.private_prompts,
        filters=models_pb2.Filters(**asdict(specialist.filters)),
        canary=models_pb2.CanaryPolicy(**asdict(specialist.canary)) if specialist.canary else None,
        on_erasure=(
            models_pb2.ON_ERASURE_RETIRE if specialist.on_erasure == domain.RETIRE else models_pb2.ON_ERASURE_MARK
        ),
        update_time=timestamp(specialist.update_time),
    )


def to_ref(message: common_pb2.ObjectRef) -> Ref:
    """A reference from the wire."""
    return Ref(message.uri, message.sha256, message.size_bytes)


def from_serving(serving: Serving) -> models_pb2.SpecialistServing:
    """A decision for the wire."""
    message = models_pb2.SpecialistServing(
        specialist=serving.specialist,
        generation=serving.generation,
        adapter_digest=serving.adapter_digest,
        dataset_digest=serving.dataset_digest,
        base=serving.base,
        previous_digest=serving.previous_digest,
        system_prompt=serving.system_prompt,
        private_prompts=serving.private_prompts,
    )
    if serving.manifest is not None:
        manifest = serving.manifest
        message.manifest.CopyFrom(
            common_pb2.ObjectRef(uri=manifest.uri, sha256=manifest.sha256, size_bytes=manifest.size_bytes)
        )
    if serving.canary is not None:
        message.canary.CopyFrom(_from_serving_canary(serving.canary))
    message.create_time.GetCurrentTime()
    return message


def _from_serving_canary(canary: ServingCanary) -> models_pb2.ServingCanary:
    manifest = canary.manifest
    return models_pb2.ServingCanary(
        adapter_digest=canary.adapter_digest,
        manifest=common_pb2.ObjectRef(uri=manifest.uri, sha256=manifest.sha256, size_bytes=manifest.size_bytes),
        dataset_digest=canary.dataset_digest,
        system_prompt=canary.system_prompt,
        percent=canary.percent,
    )


def _to_serving_canary(message: models_pb2.ServingCanary) -> ServingCanary:
    return ServingCanary(
        message.adapter_digest,
        to_ref(message.manifest),
        message.dataset_digest,
        message.system_prompt,
        percent=message.percent,
    )


def to_serving(message: models_pb2.SpecialistServing) -> Serving:
    """A decision from the wire."""
    return Serving(
        specialist=message.specialist,
        generation=message.generation,
        adapter_digest=message.adapter_digest,
        manifest=to_ref(message.manifest) if message.HasField("manifest") else None,
        dataset_digest=message.dataset_digest,
        base=message.base,
        previous_digest=message.previous_digest,
        system_prompt=message.system_prompt,
        private_prompts=message.private_prompts,
        canary=_to_serving_canary(message.canary) if message.HasField("canary") else None,
    )


def to_rules(message: models_pb2.CanaryPolicy, defaults: CanaryRules) -> CanaryRules:
    """A canary's rules from the wire; what is not set is as in `defaults`."""
    increase = message.max_error_rate_increase if message.HasField("max_error_rate_increase") else None
    return CanaryRules(
        percent=message.percent or defaults.percent,
        min_calls=message.min_calls or defaults.min_calls,
        max_seconds=message.max_seconds or defaults.max_seconds,
        max_error_rate_increase=defaults.max_error_rate_increase if increase is None else increase,
        max_latency_ratio=message.max_latency_ratio or defaults.max_latency_ratio,
    )


def from_canary(canary: Canary) -> registry_pb2.Canary:
    """A canary for the wire."""
    return registry_pb2.Canary(
        adapter_digest=canary.adapter_digest,
        generation=canary.generation,
        policy=models_pb2.CanaryPolicy(**asdict(canary.rules)),
        state=CANARY_STATES[canary.outcome],
        reason=canary.reason,
        start_time=timestamp(canary.start_time),
        end_time=timestamp(canary.end_time),
        canary=_from_arm(canary.tried),
        incumbent=_from_arm(canary.beside),
    )


def _from_arm(arm: Arm) -> registry_pb2.CanaryArm:
    return registry_pb2.CanaryArm(**asdict(arm))


def to_adapter(message: models_pb2.AdapterTrained) -> domain.Adapter:
    """An adapter from the wire."""
    kind = domain.POLICY if message.kind == models_pb2.ADAPTER_KIND_POLICY else "reward"
    return domain.Adapter(
        digest=message.digest,
        kind=kind,
        specialist=message.specialist,
        manifest=to_ref(message.manifest),
        dataset_digest=message.dataset_digest,
        base=message.base,
        parent_digest=message.parent_digest,
    )


def to_evaluation(message: models_pb2.AdapterEvaluated) -> Evaluation:
    """An evaluation from the wire."""
    return Evaluation(
        evaluation_id=message.evaluation_id,
        adapter_digest=message.adapter_digest,
        specialist=message.specialist,
        rows=message.rows,
        base=dict(message.base.values),
        candidate=dict(message.candidate.values),
        incumbent=dict(message.incumbent.values) if message.HasField("incumbent") else None,
        incumbent_generation=message.incumbent_generation,
        incumbent_digest=message.incumbent_digest,
        payload=message.SerializeToString(deterministic=True),
    )


def to_draft(message: drafts_pb2.DraftCreated) -> domain.Draft:
    """A draft's provenance from the wire."""
    return domain.Draft(
        message.draft_id, message.specialist, message.adapter_digest, message.dataset_digest, message.key_id
    )


def to_call(message: drafts_pb2.DraftCreated) -> Call | None:
    """A draft as a call that a canary may count; None where the caller ended it, or of the base."""
    if not message.specialist or message.finish_reason == "cancelled":
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


def from_judgement(judgement: domain.Judgement) -> drafts_pb2.JudgementRecorded:
    """A judgement for the wire."""
    accuracy, style, usefulness = judgement.rubric
    return drafts_pb2.JudgementRecorded(
        judgement_id=judgement.judgement_id,
        specialist=judgement.specialist,
        ranking=judgement.ranking,
        rubric=drafts_pb2.Rubric(accuracy=accuracy, style=style, usefulness=usefulness),
        comment=judgement.comment,
        create_time=timestamp(judgement.create_time),
    )


def to_judgement(message: drafts_pb2.JudgementRecorded) -> domain.Judgement:
    """A judgement from the wire."""
    rubric = (message.rubric.accuracy, message.rubric.style, message.rubric.usefulness)
    moment = message.create_time.ToDatetime(UTC)
    return domain.Judgement(
        message.judgement_id, message.specialist, tuple(message.ranking), rubric, message.comment, moment
    )


def from_key(key: domain.ApiKey) -> registry_pb2.Key:
    """A key for the wire; it holds no secret."""
    return registry_pb2.Key(
        key_id=key.key_id,
        name=key.name,
        role=common_pb2.Role.Value(key.role),
        specialists=key.specialists,
        revoked=key.revoked,
        create_time=timestamp(key.create_time),
        expire_time=timestamp(key.expire_time),
        methods=key.methods,
        calls_per_minute=key.calls_per_minute,
    )


def to_replica(message: models_pb2.ReplicaSeen) -> Replica:
    """A replica from the wire."""
    return Replica(message.replica, message.base, message.create_time.ToDatetime(UTC), message.leaving)


def from_reached(reached: Reached) -> registry_pb2.ReplicaState:
    """How far a replica is, for the wire."""
    return registry_pb2.ReplicaState(
        replica=reached.replica.name,
        serving=reached.serving,
        reason=reached.refusal,
        seen_time=timestamp(reached.replica.seen_time),
    )


def anonymized_state(message: documents_pb2.DocumentAnonymized) -> domain.DocumentState:
    """A document that passed the barrier."""
    return domain.DocumentState(
        submission_id=message.submission_id,
        document_id=message.document_id,
        state="anonymized",
        payload=message.SerializeToString(deterministic=True),
        sequence=message.version.sequence,
        source=message.labels.source,
        department=message.labels.department,
        confidentiality=message.labels.confidentiality,
        findings=dict(message.findings),
        format=message.format,
        language=message.language,
        char_count=message.char_count,
    )


def rejected_state(message: documents_pb2.DocumentRejected) -> domain.DocumentState:
    """A submission that goes no further."""
    reason = documents_pb2.RejectionReason.Name(message.reason).removeprefix("REJECTION_REASON_")
    return domain.DocumentState(
        submission_id=message.submission_id,
        document_id=message.document_id,
        state="rejected",
        payload=message.SerializeToString(deterministic=True),
        source=message.labels.source,
        department=message.labels.department,
        confidentiality=message.labels.confidentiality,
        reason=reason,
        format=message.format,
        stage=documents_pb2.Stage.Name(message.stage).removeprefix("STAGE_").lower(),
    )


def ingested_state(message: documents_pb2.DocumentIngested) -> domain.DocumentState:
    """A submission that became text. The reference into quarantine is not kept."""
    return domain.DocumentState(message.submission_id, message.document_id, "ingested", b"")


def to_forgotten(message: documents_pb2.DocumentForgotten) -> domain.ForgottenBy:
    """A service's answer from the wire."""
    return domain.ForgottenBy(
        message.erasure_id,
        message.document_id,
        message.service,
        dict(message.counts),
        tuple(message.dataset_digests),
    )


def from_erasure(erasure: domain.Erasure) -> registry_pb2.Erasure:
    """An erasure for the wire."""
    message = registry_pb2.Erasure(
        erasure_id=erasure.erasure_id,
        document_ids=erasure.document_ids,
        lifted_document_ids=erasure.lifted,
        reason=erasure.reason,
        waiting_for=erasure.waiting_for,
        create_time=timestamp(erasure.create_time),
    )
    if erasure.receipt is not None:
        receipt = erasure.receipt
        message.receipt.CopyFrom(
            registry_pb2.Receipt(body=receipt.body, signature=receipt.signature, public_key=receipt.public_key)
        )
    return message


def from_erased(
    erasure_id: str, document_id: str, datasets: Sequence[str], taints: Sequence[domain.Taint]
) -> documents_pb2.DocumentErased:
    """That a document is erased, for the wire."""
    message = documents_pb2.DocumentErased(
        document_id=document_id,
        erasure_id=erasure_id,
        dataset_digests=datasets,
        adapter_digests=[one.adapter_digest for one in taints],
        retired_adapter_digests=[one.adapter_digest for one in taints if one.retired],
    )
    message.create_time.GetCurrentTime()
    return message
