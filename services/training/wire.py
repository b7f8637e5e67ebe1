"""Between the wire's messages and the domain."""

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from services.training.domain import Base, Failure, Progress, Run, RunState, Trained
from services.training.handlers import Built
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import models_pb2
from tailor.api.training.v1 import training_pb2
from tailor.storage.ref import Ref

STATES = {
    RunState.QUEUED: training_pb2.RUN_STATE_QUEUED,
    RunState.RUNNING: training_pb2.RUN_STATE_RUNNING,
    RunState.SUCCEEDED: training_pb2.RUN_STATE_SUCCEEDED,
    RunState.FAILED: training_pb2.RUN_STATE_FAILED,
    RunState.CANCELLED: training_pb2.RUN_STATE_CANCELLED,
}
KINDS = {models_pb2.DATASET_KIND_SFT: "sft", models_pb2.DATASET_KIND_PREFERENCE: "preference"}


def timestamp(moment: datetime | None) -> Timestamp | None:
    """A moment on the wire; None stays absent."""
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def to_ref(message: common_pb2.ObjectRef) -> Ref:
    """A reference from the wire."""
    return Ref(message.uri, message.sha256, message.size_bytes)


def from_ref(ref: Ref) -> common_pb2.ObjectRef:
    """A reference on the wire."""
    return common_pb2.ObjectRef(uri=ref.uri, sha256=ref.sha256, size_bytes=ref.size_bytes)


def to_built(message: models_pb2.DatasetBuilt) -> Built:
    """A dataset from its event."""
    kind = KINDS.get(message.kind, "unspecified")
    return Built(message.digest, message.specialist, kind, to_ref(message.manifest), message.base, message.recipe)


def from_progress(run: Run, progress: Progress) -> models_pb2.RunProgressed:
    """A report on the wire."""
    return models_pb2.RunProgressed(
        run_id=run.run_id,
        specialist=run.key.specialist,
        phase=progress.phase,
        step=progress.step,
        total_steps=progress.total_steps,
        loss=progress.loss,
        learning_rate=progress.learning_rate,
        gradient_norm=progress.gradient_norm,
        tokens_per_second=progress.tokens_per_second,
        remaining_seconds=progress.remaining_seconds,
        epoch=progress.epoch,
        create_time=timestamp(progress.create_time),
    )


def to_progress(message: models_pb2.RunProgressed, epoch: int, now: datetime) -> Progress:
    """A report from the wire, under the epoch that was checked."""
    made = message.create_time.ToDatetime(UTC) if message.HasField("create_time") else now
    return Progress(
        phase=message.phase,
        step=message.step,
        total_steps=message.total_steps,
        loss=message.loss,
        learning_rate=message.learning_rate,
        gradient_norm=message.gradient_norm,
        tokens_per_second=message.tokens_per_second,
        remaining_seconds=message.remaining_seconds,
        epoch=epoch,
        create_time=made,
    )


def from_failure(run: Run) -> models_pb2.RunFailed:
    """Why a run ended, on the wire."""
    return models_pb2.RunFailed(
        run_id=run.run_id,
        specialist=run.key.specialist,
        reason=run.reason,
        message=run.message,
        create_time=timestamp(run.end_time),
    )


def to_failure(message: models_pb2.RunFailed) -> Failure:
    """Why a run cannot succeed, from the wire."""
    return Failure(message.reason or "UNSPECIFIED", message.message)


def from_trained(run: Run, trained: Trained) -> models_pb2.AdapterTrained:
    """An adapter on the wire."""
    return models_pb2.AdapterTrained(
        digest=trained.digest,
        kind=models_pb2.ADAPTER_KIND_POLICY,
        specialist=run.key.specialist,
        run_id=run.run_id,
        dataset_digest=run.key.dataset_digest,
        base=run.key.base,
        base_digest=trained.base_digest,
        manifest=from_ref(trained.manifest),
        steps=trained.steps,
        first_loss=trained.first_loss,
        last_loss=trained.last_loss,
        tokens_per_second=trained.tokens_per_second,
        seconds=trained.seconds,
        create_time=timestamp(run.end_time),
    )


def to_trained(message: models_pb2.AdapterTrained) -> Trained:
    """An adapter from the wire."""
    return Trained(
        digest=message.digest,
        manifest=to_ref(message.manifest),
        base_digest=message.base_digest,
        steps=message.steps,
        first_loss=message.first_loss,
        last_loss=message.last_loss,
        tokens_per_second=message.tokens_per_second,
        seconds=message.seconds,
    )


def from_run(run: Run) -> training_pb2.Run:
    """A run on the wire."""
    return training_pb2.Run(
        run_id=run.run_id,
        specialist=run.key.specialist,
        dataset_digest=run.key.dataset_digest,
        base=run.key.base,
        recipe=run.recipe,
        state=STATES[run.state],
        reason=run.reason,
        message=run.message,
        progress=from_progress(run, run.progress) if run.progress else None,
        adapter_digest=run.adapter_digest,
        epoch=run.epoch,
        create_time=timestamp(run.create_time),
        start_time=timestamp(run.start_time),
        end_time=timestamp(run.end_time),
        recipe_digest=run.key.recipe_digest,
        first_loss=run.first_loss,
    )


def from_base(base: Base) -> training_pb2.Base:
    """A base on the wire."""
    return training_pb2.Base(
        name=base.name,
        digest=base.digest,
        licence=base.licence,
        parameters=base.parameters,
        size_bytes=base.size_bytes,
        manifest=from_ref(base.manifest),
    )
