"""Builds a worker's reports: messages of progress, of a trained adapter, and of a failure."""

from datetime import UTC, datetime

from services.training.methods.base import Meter
from services.training.methods.memory import peak_bytes
from services.training.spec import WorkerSpec
from services.training.worker.results import StoredResult
from tailor.api.events.v1 import models_pb2
from tailor.errors import TailorError
from tailor.wire import from_ref, now

KINDS = {"policy": models_pb2.ADAPTER_KIND_POLICY, "reward": models_pb2.ADAPTER_KIND_REWARD}


def seconds_since_start(spec: WorkerSpec) -> float:
    """Seconds of wall time since the run's first worker started."""
    if not spec.start_time:
        return 0.0
    return (datetime.now(UTC) - datetime.fromisoformat(spec.start_time)).total_seconds()


def complete_progress(
    spec: WorkerSpec, phase: str, step: models_pb2.RunProgressed, meter: Meter, *, held_out_loss: float | None
) -> models_pb2.RunProgressed:
    """A step's figures, completed with the phase, the run, and the worker's speed and memory."""
    message = models_pb2.RunProgressed(
        run_id=spec.run_id,
        specialist=spec.specialist,
        phase=phase,
        tokens_per_second=meter.rate(),
        remaining_seconds=meter.remaining(step.step, step.total_steps),
        epoch=spec.epoch,
        create_time=now(),
        stage=spec.stage,
        memory_bytes=peak_bytes(),
        held_out_loss=held_out_loss,
    )
    message.MergeFrom(step)
    return message


def to_trained(
    figures: models_pb2.AdapterTrained, spec: WorkerSpec, kind: str, stored: StoredResult
) -> models_pb2.AdapterTrained:
    """The figures of a stage, completed with the adapter that is stored and proven."""
    message = models_pb2.AdapterTrained(
        digest=stored.manifest.sha256,
        kind=KINDS[kind],
        base_digest=spec.base_digest,
        manifest=from_ref(stored.manifest),
        size_bytes=stored.size_bytes,
        parent_digest=spec.parent.sha256 if spec.parent else "",
        stage=spec.stage,
    )
    message.MergeFrom(figures)
    message.seconds = seconds_since_start(spec)
    return message


def to_failed(spec: WorkerSpec, error: TailorError) -> models_pb2.RunFailed:
    """Why the run cannot succeed."""
    return models_pb2.RunFailed(
        run_id=spec.run_id, specialist=spec.specialist, reason=error.reason, message=error.message, create_time=now()
    )
