"""The training loop: from a method's context to a trained model, resuming from the newest checkpoint."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.training.methods.base import Method, Prepared, StageContext, remove_printers, retry_dependency
from services.training.methods.loading import keep_in_f32
from services.training.methods.processes import gather_model
from services.training.worker.checkpoints import Checkpoints
from tailor.api.events.v1 import models_pb2
from tailor.logging import get_logger

log = get_logger(__name__)


@dataclass(frozen=True)
class TrainedModel:
    """A model that was trained to the end, without the trainer's autocast, and its metrics.

    `steps` were done. `stopped_because` says why they were not all; empty if they were.
    """

    model: Any
    prepared: Prepared
    metrics: Mapping[str, float]
    steps: int
    stopped_because: str = ""


def train(
    context: StageContext,
    method: Method,
    checkpoints: Checkpoints,
    report: Callable[[models_pb2.RunProgressed], None],
    training: threading.Event,
) -> TrainedModel | None:
    """Train to the end, or to that of the budget. Blocks.

    Returns None if the worker was asked to stop before that; `training` is set while it can be asked.
    """
    prepared = method(context)
    try:
        return _train(context, prepared, checkpoints, report, training)
    finally:
        prepared.release()


def _train(
    context: StageContext,
    prepared: Prepared,
    checkpoints: Checkpoints,
    report: Callable[[models_pb2.RunProgressed], None],
    training: threading.Event,
) -> TrainedModel | None:
    from services.training.worker.callbacks import BudgetCallback, StepCallback

    trainer = prepared.trainer
    remove_printers(trainer)
    keep_in_f32(trainer.model)
    checkpoint = _load_checkpoint(context, checkpoints)
    budget = BudgetCallback(trainer.model, prepared.watch, checkpoint) if prepared.watch else None
    if budget:
        # Before the other callback, which stores the checkpoint that this one adds a file to.
        trainer.add_callback(budget)
    trainer.add_callback(StepCallback(context, checkpoints, report=report, shown=prepared.shown))
    log.info("training", rows=prepared.rows, rows_skipped=prepared.skipped, steps=prepared.steps)
    training.set()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    # Measuring and the reload check need its memory.
    prepared.release()
    stopped_because = budget.exceeded if budget else ""
    if trainer.state.global_step < prepared.steps and not stopped_because:
        return None
    training.clear()
    sharded = context.processes.sharded
    metrics = prepared.measure() if sharded or context.processes.first else {}
    if budget and stopped_because:
        metrics = {**metrics, "kept_step": float(budget.kept_step)}
    log.info("measured", **metrics)
    # The saved model will be used without autocast.
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    gathered = gather_model(model, prepared.rebuild) if sharded else model
    return TrainedModel(gathered, prepared, metrics, trainer.state.global_step, stopped_because)


def _load_checkpoint(context: StageContext, checkpoints: Checkpoints) -> Path | None:
    """The folder of the newest checkpoint, downloaded; None if there is none."""
    resumed = retry_dependency("object store", lambda: checkpoints.load_newest(context.folder))
    context.processes.check_same("checkpoint", resumed)
    context.meter.earlier_tokens = resumed.tokens
    log.info("checkpoint", from_step=resumed.step)
    return context.folder / f"checkpoint-{resumed.step}" if resumed.step else None
