"""Between wire messages and the domain."""

from collections.abc import Mapping
from datetime import UTC

from services.evaluation.domain import (
    BASE,
    CANDIDATE,
    INCUMBENT,
    Adapter,
    Evaluation,
    Measured,
    Serving,
    State,
    Terms,
)
from tailor.api.common.v1 import common_pb2
from tailor.api.evaluation.v1 import evaluation_pb2
from tailor.api.events.v1 import models_pb2
from tailor.errors import InvalidArgument, Reason
from tailor.storage.ref import Ref

STATES = {
    State.QUEUED: evaluation_pb2.EVALUATION_STATE_QUEUED,
    State.RUNNING: evaluation_pb2.EVALUATION_STATE_RUNNING,
    State.SUCCEEDED: evaluation_pb2.EVALUATION_STATE_SUCCEEDED,
    State.FAILED: evaluation_pb2.EVALUATION_STATE_FAILED,
}


def to_ref(message: common_pb2.ObjectRef) -> Ref:
    """A reference; InvalidArgument without an address."""
    if not message.uri:
        raise InvalidArgument(Reason.INCOMPLETE_EVENT, "A reference needs its address.")
    return Ref(message.uri, message.sha256, message.size_bytes)


def from_ref(ref: Ref) -> common_pb2.ObjectRef:
    """A reference for the wire."""
    return common_pb2.ObjectRef(uri=ref.uri, sha256=ref.sha256, size_bytes=ref.size_bytes)


def to_adapter(message: models_pb2.AdapterTrained) -> Adapter:
    """An adapter; InvalidArgument without digest, specialist or dataset."""
    if not (message.digest and message.specialist and message.dataset_digest):
        raise InvalidArgument(Reason.INCOMPLETE_EVENT, "An adapter needs its digest, specialist and dataset.")
    return Adapter(message.digest, message.specialist, message.dataset_digest, message.base, to_ref(message.manifest))


def to_serving(message: models_pb2.SpecialistServing) -> Serving:
    """What serves; the manifest is absent for the base."""
    manifest = to_ref(message.manifest) if message.adapter_digest else None
    return Serving(message.specialist, message.generation, message.adapter_digest, manifest)


def to_terms(message: models_pb2.SpecialistChanged) -> Terms:
    """A specialist's terms."""
    return Terms(message.name, message.revision, tuple(message.house_terms))


def from_measured(measured: Measured) -> models_pb2.AdapterEvaluated:
    """The outcome for the wire."""
    adapter, incumbent = measured.evaluation.adapter, measured.incumbent
    message = models_pb2.AdapterEvaluated(
        evaluation_id=measured.evaluation.evaluation_id,
        adapter_digest=adapter.digest,
        specialist=adapter.specialist,
        dataset_digest=adapter.dataset_digest,
        base=_scores(measured.scores[BASE]),
        candidate=_scores(measured.scores[CANDIDATE]),
        rows=measured.rows,
        report=from_ref(measured.report),
    )
    if incumbent is not None:
        message.incumbent_digest = incumbent.adapter_digest
        message.incumbent_generation = incumbent.generation
    if INCUMBENT in measured.scores:
        message.incumbent.CopyFrom(_scores(measured.scores[INCUMBENT]))
    if measured.created_at is not None:
        message.create_time.FromDatetime(measured.created_at)
    return message


def to_measured(message: models_pb2.AdapterEvaluated, evaluation: Evaluation) -> Measured:
    """The outcome as it was stated."""
    scores = {BASE: dict(message.base.values), CANDIDATE: dict(message.candidate.values)}
    if message.HasField("incumbent"):
        scores[INCUMBENT] = dict(message.incumbent.values)
    incumbent = None
    if message.incumbent_generation:
        incumbent = Serving(message.specialist, message.incumbent_generation, message.incumbent_digest)
    return Measured(
        evaluation=evaluation,
        rows=message.rows,
        scores=scores,
        incumbent=incumbent,
        report=to_ref(message.report),
        created_at=message.create_time.ToDatetime(UTC),
    )


def _scores(values: Mapping[str, float]) -> models_pb2.Scores:
    return models_pb2.Scores(values=dict(values))
