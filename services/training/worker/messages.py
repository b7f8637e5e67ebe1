"""What a worker reports of its run, as messages."""

from datetime import UTC, datetime

from services.training.spec import WorkerSpec
from services.training.worker.callbacks import Meter, StepReport
from services.training.worker.memory import peak_bytes
from services.training.worker.results import Figures
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import models_pb2
from tailor.errors import TailorError
from tailor.storage.ref import Ref

KINDS = {"policy": models_pb2.ADAPTER_KIND_POLICY, "reward": models_pb2.ADAPTER_KIND_REWARD}


def seconds_since_start(spec: WorkerSpec) -> float:
    """Wall time since the run's first worker started."""
    now = datetime.now(UTC)
    return (now - datetime.fromisoformat(spec.start_time)).total_seconds() if spec.start_time else 0.0


def progressed(
    spec: WorkerSpec, phase: str, report: StepReport, meter: Meter, held_out_loss: float | None
) -> models_pb2.RunProgressed:
    """Where the run stands."""
    message = models_pb2.RunProgressed(
        run_id=spec.run_id,
        specialist=spec.specialist,
        phase=phase,
        step=report.step,
        total_steps=report.total,
        loss=report.loss,
        learning_rate=report.learning_rate,
        gradient_norm=report.gradient_norm,
        tokens_per_second=meter.rate(),
        remaining_seconds=meter.remaining(report.step, report.total),
        epoch=spec.epoch,
        stage=spec.stage,
        memory_bytes=peak_bytes(),
        reward=report.reward,
        kl=report.kl,
        accuracy=report.accuracy,
        held_out_loss=held_out_loss,
    )
    message.create_time.FromDatetime(datetime.now(UTC))
    return message


def trained(spec: WorkerSpec, kind: str, figures: Figures, manifest: Ref) -> models_pb2.AdapterTrained:
    """The adapter that is stored and proven."""
    return models_pb2.AdapterTrained(
        digest=manifest.sha256,
        kind=KINDS[kind],
        base_digest=spec.base_digest,
        manifest=common_pb2.ObjectRef(uri=manifest.uri, sha256=manifest.sha256, size_bytes=manifest.size_bytes),
        parent_digest=spec.parent.sha256 if spec.parent else "",
        steps=figures.steps,
        first_loss=figures.first_loss,
        last_loss=figures.last_loss,
        tokens_per_second=figures.tokens_per_second,
        seconds=figures.seconds,
        metrics=figures.metrics,
        rows=figures.rows,
        tokens=figures.tokens,
        memory_bytes=figures.memory_bytes,
        stage=spec.stage,
    )


def failed(spec: WorkerSpec, error: TailorError) -> models_pb2.RunFailed:
    """Why the run cannot succeed."""
    message = models_pb2.RunFailed(
        run_id=spec.run_id, specialist=spec.specialist, reason=error.reason, message=error.message
    )
    message.create_time.FromDatetime(datetime.now(UTC))
    return message
