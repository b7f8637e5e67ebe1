"""Translates evaluation's messages to its domain and back where their fields differ; `tailor.codec` does the rest."""

import hashlib

from services.evaluation.comparison import Comparison, RowPair
from services.evaluation.domain import Adapter, Evaluation, EvaluationResult, Serving, SpecialistTerms
from tailor.api.evaluation.v1 import evaluation_pb2
from tailor.api.events.v1 import models_pb2
from tailor.codec import decode, encode
from tailor.errors import InvalidArgument, Reason
from tailor.wire import to_metric, to_ref


def to_adapter(message: models_pb2.AdapterTrained) -> Adapter:
    """Raises InvalidArgument (INCOMPLETE_EVENT) if a required field is empty."""
    for field in ("digest", "specialist", "dataset_digest"):
        if not getattr(message, field):
            raise InvalidArgument(Reason.INCOMPLETE_EVENT, f"AdapterTrained needs `{field}`.")
    return decode(Adapter, message, manifest=to_ref(message.manifest))


def to_serving(message: models_pb2.SpecialistServing) -> Serving:
    """The adapter that serves; its manifest is None for the base."""
    return decode(Serving, message, manifest=to_ref(message.manifest) if message.adapter_digest else None)


def to_terms(message: models_pb2.SpecialistChanged) -> SpecialistTerms:
    """The part of a definition that concerns evaluation."""
    metrics = tuple(map(to_metric, message.metrics))
    digest = _definition_digest(message)
    return decode(SpecialistTerms, message, metrics=metrics, definition_digest=digest)


def _definition_digest(message: models_pb2.SpecialistChanged) -> str:
    """SHA-256 of the metrics and the gate."""
    parts = models_pb2.SpecialistChanged(metrics=message.metrics, gate=message.gate)
    return hashlib.sha256(parts.SerializeToString(deterministic=True)).hexdigest()


def from_result(result: EvaluationResult) -> models_pb2.AdapterEvaluated:
    """The event of a successful evaluation."""
    adapter, incumbent = result.evaluation.adapter, result.incumbent
    return encode(
        models_pb2.AdapterEvaluated,
        result,
        evaluation_id=result.evaluation.evaluation_id,
        adapter_digest=adapter.digest,
        specialist=adapter.specialist,
        dataset_digest=adapter.dataset_digest,
        incumbent_digest=incumbent.adapter_digest if incumbent else None,
        incumbent_generation=incumbent.generation if incumbent else None,
    )


def to_result(message: models_pb2.AdapterEvaluated, evaluation: Evaluation) -> EvaluationResult:
    """The result of an evaluation from its event."""
    incumbent = None
    if message.incumbent_generation:
        incumbent = Serving(message.specialist, message.incumbent_generation, message.incumbent_digest)
    return decode(EvaluationResult, message, evaluation=evaluation, incumbent=incumbent, report=to_ref(message.report))


def from_comparison(comparison: Comparison, start: int, size: int) -> evaluation_pb2.CompareEvaluationsResponse:
    """A page of the rows, with all groups."""
    end = start + size
    return encode(
        evaluation_pb2.CompareEvaluationsResponse,
        comparison,
        rows=map(_from_pair, comparison.rows[start:end]),
        next_page_token=str(end) if end < len(comparison.rows) else "",
    )


def _from_pair(pair: RowPair) -> evaluation_pb2.RowComparison:
    return encode(
        evaluation_pb2.RowComparison,
        pair,
        row_id=pair.row.row_id,
        task=pair.row.task,
        language=pair.row.language,
        prompt=pair.row.messages[-1][1] if pair.row.messages else "",
        reference=pair.row.reference,
    )
