"""Between the wire's messages and the domain."""

import math
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from services.training.domain import Base, Failure, LogLine, Progress, Run, RunState, Stage, Trained
from services.training.handlers import Built
from services.training.new_run import Wanted
from services.training.plans import Plan, Price, Report
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
ADAPTER_KINDS = {"policy": models_pb2.ADAPTER_KIND_POLICY, "reward": models_pb2.ADAPTER_KIND_REWARD}
LEVELS = ("info", "warning", "error")
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
    manifest, ranked = to_ref(message.manifest), message.ranked_adapter_digest
    return Built(message.digest, message.specialist, kind, manifest, message.base, message.recipe, ranked)


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
        stage=progress.stage,
        memory_bytes=progress.memory_bytes,
        reward=progress.reward,
        kl=progress.kl,
        accuracy=progress.accuracy,
        held_out_loss=progress.held_out_loss,
    )


def to_progress(message: models_pb2.RunProgressed, epoch: int, now: datetime) -> Progress:
    """A report from the wire, under the epoch that was checked."""
    made = message.create_time.ToDatetime(UTC) if message.HasField("create_time") else now
    return Progress(
        phase=message.phase,
        step=message.step,
        total_steps=message.total_steps,
        loss=message.loss,
        learning_rate=_finite(message.learning_rate),
        gradient_norm=_finite(message.gradient_norm),
        tokens_per_second=_finite(message.tokens_per_second),
        remaining_seconds=_finite(message.remaining_seconds),
        epoch=epoch,
        create_time=made,
        memory_bytes=message.memory_bytes,
        reward=_measured(message, "reward"),
        kl=_measured(message, "kl"),
        accuracy=_measured(message, "accuracy"),
        held_out_loss=_measured(message, "held_out_loss"),
    )


def _finite(value: float) -> float:
    """The number, or 0 where it is none: JSON has no other."""
    return value if math.isfinite(value) else 0.0


def _measured(message: models_pb2.RunProgressed, name: str) -> float | None:
    value = float(getattr(message, name))
    return value if message.HasField(name) and math.isfinite(value) else None  # type: ignore[arg-type]


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


def from_trained(run: Run, trained: Trained, now: datetime) -> models_pb2.AdapterTrained:
    """The adapter of the run's present stage on the wire."""
    stage = run.current
    return models_pb2.AdapterTrained(
        digest=trained.digest,
        kind=ADAPTER_KINDS[stage.kind],
        specialist=run.key.specialist,
        run_id=run.run_id,
        dataset_digest=stage.dataset.sha256 if stage.dataset else "",
        base=run.key.base,
        base_digest=trained.base_digest,
        manifest=from_ref(trained.manifest),
        parent_digest=stage.parent.sha256 if stage.parent else "",
        steps=trained.steps,
        first_loss=trained.first_loss,
        last_loss=trained.last_loss,
        tokens_per_second=trained.tokens_per_second,
        seconds=trained.seconds,
        create_time=timestamp(now),
        metrics=trained.metrics,
        rows=trained.rows,
        tokens=trained.tokens,
        memory_bytes=trained.memory_bytes,
        stage=run.stage,
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
        rows=message.rows,
        tokens=message.tokens,
        memory_bytes=message.memory_bytes,
        metrics={name: value for name, value in message.metrics.items() if math.isfinite(value)},
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
        parent_digest=run.key.parent_digest,
        preference_dataset_digest=run.preferences,
        priority=run.priority,
        stages=[from_stage(stage) for stage in run.stages],
        stage=run.stage,
        plan=from_plan(run.plan) if run.plan else None,
        report=from_report(run.report) if run.report else None,
    )


def from_stage(stage: Stage) -> training_pb2.RunStage:
    """A stage on the wire."""
    return training_pb2.RunStage(
        recipe=stage.recipe,
        method=stage.method,
        dataset_digest=stage.dataset.sha256 if stage.dataset else "",
        parent_digest=stage.parent.sha256 if stage.parent else "",
        adapter_digest=stage.made.digest if stage.made else "",
        kind=ADAPTER_KINDS[stage.made.kind] if stage.made else models_pb2.ADAPTER_KIND_UNSPECIFIED,
    )


def from_plan(plan: Plan) -> training_pb2.RunPlan:
    """A plan on the wire."""
    return training_pb2.RunPlan(
        rows=plan.rows,
        tokens=plan.tokens,
        steps=plan.steps,
        memory_bytes=plan.memory_bytes,
        device_memory_bytes=plan.device_memory_bytes,
        device=plan.device,
        devices=plan.devices,
        seconds=plan.seconds,
        seconds_from=plan.seconds_from,
        price=from_price(plan.price),
        fits=plan.fits,
        refusal=plan.refusal,
        nearest_recipe=plan.nearest_recipe,
        create_time=timestamp(plan.create_time),
    )


def from_report(report: Report) -> training_pb2.RunReport:
    """A report on the wire."""
    return training_pb2.RunReport(
        rows=report.rows,
        tokens=report.tokens,
        steps=report.steps,
        memory_bytes=report.memory_bytes,
        seconds=report.seconds,
        price=from_price(report.price),
        memory_error=report.memory_error,
        seconds_error=report.seconds_error,
        tokens_error=report.tokens_error,
    )


def from_price(price: Price) -> training_pb2.Price:
    """A price on the wire."""
    return training_pb2.Price(
        currency=price.currency,
        total=price.total,
        compute=price.compute,
        teacher=price.teacher,
        annotation=price.annotation,
    )


def to_wanted(message: training_pb2.CreateRunRequest | training_pb2.PlanRunRequest) -> Wanted:
    """What is asked for, from the wire."""
    return Wanted(
        specialist=message.specialist,
        dataset_digest=message.dataset_digest,
        base=message.base,
        recipe=message.recipe,
        parent_digest=message.parent_digest,
        preference_dataset_digest=message.preference_dataset_digest,
        priority=message.priority if isinstance(message, training_pb2.CreateRunRequest) else 0,
    )


def from_line(line: LogLine) -> training_pb2.LogLine:
    """A line of a log on the wire."""
    return training_pb2.LogLine(
        create_time=timestamp(line.create_time), level=line.level, message=line.message, epoch=line.epoch
    )


def to_line(message: training_pb2.LogLine, epoch: int, now: datetime) -> LogLine:
    """A line of a log from the wire, under the epoch that was checked."""
    made = message.create_time.ToDatetime(UTC) if message.HasField("create_time") else now
    return LogLine(made, message.level if message.level in LEVELS else "info", message.message, epoch)


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
