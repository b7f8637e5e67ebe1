"""Translates training's messages to its domain and back where their fields differ; `tailor.codec` does the rest."""

import math
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from services.training.domain import (
    POLICY,
    PREFERENCE,
    SFT,
    Failure,
    LogLine,
    Progress,
    Run,
    Stage,
    TrainedAdapter,
)
from services.training.spending import count_worked_seconds, price_worked
from tailor.api.events.v1 import models_pb2
from tailor.api.training.v1 import training_pb2
from tailor.codec import decode, encode
from tailor.columns import list_values
from tailor.wire import from_datetime

ADAPTER_KINDS = {
    "policy": models_pb2.ADAPTER_KIND_POLICY,
    "reward": models_pb2.ADAPTER_KIND_REWARD,
    "held_out_reward": models_pb2.ADAPTER_KIND_REWARD,
}
LEVELS = ("info", "warning", "error")
FIGURES = (
    "learning_rate",
    "gradient_norm",
    "tokens_per_second",
    "remaining_seconds",
    "reward",
    "kl",
    "accuracy",
    "held_out_loss",
    "answer_tokens",
    "truncated_share",
    "unanswered_share",
    "held_out_reward",
    "held_out_agreement",
)

# A library's error may be of any length, and the message travels in an event.
MAX_MESSAGE = 4_000


def to_progress(message: models_pb2.RunProgressed, epoch: int, now: datetime) -> Progress:
    """A worker's report, stamped with the epoch that was checked. Clears figures that are not finite, except the loss."""
    stamped = models_pb2.RunProgressed()
    stamped.CopyFrom(message)
    stamped.epoch = epoch
    if not stamped.HasField("create_time"):
        stamped.create_time.FromDatetime(now)
    for name in FIGURES:
        if not math.isfinite(getattr(stamped, name)):
            stamped.ClearField(name)  # type: ignore[arg-type]
    return read_progress(stamped.SerializeToString())


def read_progress(data: bytes) -> Progress:
    """A report from its serialised message."""
    return decode(Progress, models_pb2.RunProgressed.FromString(data), message=data)


def from_progress(run: Run, progress: Progress) -> models_pb2.RunProgressed:
    """The report's message, stamped with the run and the stage that it was accepted for."""
    message = models_pb2.RunProgressed.FromString(progress.message)
    message.run_id, message.specialist, message.stage = run.run_id, run.key.specialist, progress.stage
    message.base, message.method = run.key.base, run.stages[progress.stage].method
    # A worker cannot say what its run costs.
    message.ClearField("cost")
    message.MergeFrom(models_pb2.RunProgressed(cost=from_cost(run)))
    return message


def from_cost(run: Run) -> models_pb2.RunCost | None:
    """Device time and price of a run so far; None before it is planned."""
    plan = run.plan
    if plan is None:
        return None
    cost = models_pb2.RunCost(device_seconds=count_worked_seconds(run) * plan.devices, device=plan.device)
    if plan.hourly_price:
        cost.amount, cost.currency = price_worked(run), plan.price.currency
    return cost


def from_failure(run: Run) -> models_pb2.RunFailed:
    create_time = from_datetime(run.end_time)
    return encode(
        models_pb2.RunFailed, run, specialist=run.key.specialist, create_time=create_time, cost=from_cost(run)
    )


def to_failure(message: models_pb2.RunFailed) -> Failure:
    return Failure(message.reason or "UNSPECIFIED", message.message[:MAX_MESSAGE])


def to_trained(message: models_pb2.AdapterTrained) -> TrainedAdapter:
    """A worker's adapter, without metrics that are not finite."""
    finite = models_pb2.AdapterTrained()
    finite.CopyFrom(message)
    for name, value in message.metrics.items():
        if not math.isfinite(value):
            del finite.metrics[name]
    because = message.stopped_because[:MAX_MESSAGE]
    return decode(TrainedAdapter, message, message=finite.SerializeToString(), stopped_because=because)


def from_trained(run: Run, trained: TrainedAdapter, now: datetime) -> models_pb2.AdapterTrained:
    """The adapter's message, stamped with the run and its current stage."""
    stage = run.current
    message = models_pb2.AdapterTrained.FromString(trained.message)
    message.kind = ADAPTER_KINDS[stage.kind]
    message.specialist, message.run_id, message.base, message.stage = (
        run.key.specialist,
        run.run_id,
        run.key.base,
        run.stage,
    )
    message.dataset_digest = stage.dataset.sha256 if stage.dataset else ""
    message.parent_digest = stage.parent.sha256 if stage.parent else ""
    message.sft_dataset_digest, message.preference_dataset_digest = run.dataset_of(SFT), run.dataset_of(PREFERENCE)
    message.reward_adapter_digest = stage.reward.sha256 if stage.reward else ""
    message.round = run.round if message.preference_dataset_digest else 0
    message.intermediate = stage.kind == POLICY and run.continues
    message.base_adapter_digest = run.base_adapter
    message.ClearField("cost")
    message.MergeFrom(models_pb2.AdapterTrained(cost=from_cost(run)))
    message.create_time.FromDatetime(now)
    return message


def from_run(run: Run) -> training_pb2.Run:
    return encode(
        training_pb2.Run,
        run,
        **(asdict(run.key) | {"preference_dataset_digest": run.preferences}),
        progress=from_progress(run, run.progress) if run.progress else None,
        stages=[from_stage(stage) for stage in run.stages],
    )


def from_stage(stage: Stage) -> training_pb2.RunStage:
    return encode(
        training_pb2.RunStage,
        stage,
        dataset_digest=stage.dataset.sha256 if stage.dataset else "",
        parent_digest=stage.parent.sha256 if stage.parent else "",
        adapter_digest=stage.result.digest if stage.result else "",
        kind=ADAPTER_KINDS[stage.result.kind] if stage.result else models_pb2.ADAPTER_KIND_UNSPECIFIED,
        stopped_because=stage.result.stopped_because if stage.result else "",
    )


def to_line(message: training_pb2.LogLine, epoch: int, now: datetime) -> LogLine:
    """A line of a worker's log, under the epoch that was checked."""
    create_time = message.create_time.ToDatetime(UTC) if message.HasField("create_time") else now
    return LogLine(create_time, message.level if message.level in LEVELS else "info", message.message, epoch)


def list_run(run: Run) -> dict[str, Any]:
    """The columns by which runs are listed."""
    message = from_run(run)
    return list_values(
        training_pb2.ListRunsRequest,
        message,
        stages=" ".join(stage.method for stage in message.stages),
        loss=message.progress.loss,
        tokens_per_second=message.progress.tokens_per_second,
    )
