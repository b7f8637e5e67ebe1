"""Translates evaluation's messages to its domain and back, so that rules know no protobuf. A new field of a message is added here."""

from collections.abc import Mapping

from services.evaluation.domain import (
    BASE,
    CANDIDATE,
    INCUMBENT,
    Adapter,
    Evaluation,
    EvaluationResult,
    EvaluationState,
    Serving,
    SpecialistTerms,
)
from tailor.api.evaluation.v1 import evaluation_pb2
from tailor.api.events.v1 import models_pb2
from tailor.errors import InvalidArgument, Reason
from tailor.wire import from_ref, to_datetime, to_ref

STATES = {
    EvaluationState.QUEUED: evaluation_pb2.EVALUATION_STATE_QUEUED,
    EvaluationState.RUNNING: evaluation_pb2.EVALUATION_STATE_RUNNING,
    EvaluationState.SUCCEEDED: evaluation_pb2.EVALUATION_STATE_SUCCEEDED,
    EvaluationState.FAILED: evaluation_pb2.EVALUATION_STATE_FAILED,
}


def to_adapter(message: models_pb2.AdapterTrained) -> Adapter:
    """Raises InvalidArgument (INCOMPLETE_EVENT) if a required field is empty."""
    for field in ("digest", "specialist", "dataset_digest"):
        if not getattr(message, field):
            raise InvalidArgument(Reason.INCOMPLETE_EVENT, f"AdapterTrained needs `{field}`.")
    return Adapter(message.digest, message.specialist, message.dataset_digest, message.base, to_ref(message.manifest))


def to_serving(message: models_pb2.SpecialistServing) -> Serving:
    manifest = to_ref(message.manifest) if message.adapter_digest else None
    return Serving(message.specialist, message.generation, message.adapter_digest, manifest)


def to_terms(message: models_pb2.SpecialistChanged) -> SpecialistTerms:
    return SpecialistTerms(message.name, message.revision, tuple(message.house_terms))


def from_result(result: EvaluationResult) -> models_pb2.AdapterEvaluated:
    adapter, incumbent = result.evaluation.adapter, result.incumbent
    message = models_pb2.AdapterEvaluated(
        evaluation_id=result.evaluation.evaluation_id,
        adapter_digest=adapter.digest,
        specialist=adapter.specialist,
        dataset_digest=adapter.dataset_digest,
        base=_scores(result.scores[BASE]),
        candidate=_scores(result.scores[CANDIDATE]),
        rows=result.rows,
        report=from_ref(result.report),
    )
    if incumbent is not None:
        message.incumbent_digest = incumbent.adapter_digest
        message.incumbent_generation = incumbent.generation
    if INCUMBENT in result.scores:
        message.incumbent.CopyFrom(_scores(result.scores[INCUMBENT]))
    if result.created_at is not None:
        message.create_time.FromDatetime(result.created_at)
    return message


def to_result(message: models_pb2.AdapterEvaluated, evaluation: Evaluation) -> EvaluationResult:
    scores = {BASE: dict(message.base.values), CANDIDATE: dict(message.candidate.values)}
    if message.HasField("incumbent"):
        scores[INCUMBENT] = dict(message.incumbent.values)
    incumbent = None
    if message.incumbent_generation:
        incumbent = Serving(message.specialist, message.incumbent_generation, message.incumbent_digest)
    return EvaluationResult(
        evaluation=evaluation,
        rows=message.rows,
        scores=scores,
        incumbent=incumbent,
        report=to_ref(message.report),
        created_at=to_datetime(message.create_time),
    )


def _scores(values: Mapping[str, float]) -> models_pb2.Scores:
    return models_pb2.Scores(values=dict(values))
