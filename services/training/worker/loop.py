"""From a method's context to a trained model, or to where the worker must stop; going on from the newest checkpoint."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from services.training.methods.base import Context, Method, Prepared, quieten
from services.training.methods.model import keep_in_f32
from services.training.methods.patience import patiently
from services.training.methods.sharded import whole
from services.training.worker.callbacks import StepReport, make_callback
from services.training.worker.checkpoints import Checkpoints
from tailor.logging import get_logger

log = get_logger(__name__)


@dataclass(frozen=True)
class Made:
    """A model that was trained to the end, without the autocast that the trainer put around it, and what was measured of it."""

    model: Any
    prepared: Prepared
    metrics: Mapping[str, float]


def train(
    context: Context,
    method: Method,
    checkpoints: Checkpoints,
    report: Callable[[StepReport], None],
    training: threading.Event,
) -> Made | None:
    """Train to the end, or to where it must stop: then there is nothing. `training` is set while it can be told to."""
    prepared = method(context)
    trainer = prepared.trainer
    quieten(trainer)
    keep_in_f32(trainer.model)
    trainer.add_callback(
        make_callback(
            context.meter,
            context.turns,
            checkpoints,
            context.stopper,
            processes=context.processes,
            report=report,
            shown=prepared.shown,
        )
    )
    resumed = patiently("object store", lambda: checkpoints.newest(context.folder))
    context.processes.same("checkpoint", resumed)
    context.meter.earlier_tokens = resumed.tokens
    log.info("training", rows=prepared.rows, steps=prepared.steps, from_step=resumed.step)
    training.set()
    trainer.train(resume_from_checkpoint=str(context.folder / f"checkpoint-{resumed.step}") if resumed.step else None)
    if trainer.state.global_step < prepared.steps:
        return None
    training.clear()
    context.turns.take()
    sharded = context.processes.sharded
    metrics = prepared.measure() if sharded or context.processes.first else {}
    context.turns.give()
    log.info("measured", **metrics)
    # What is saved will be asked without autocast.
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    return Made(whole(model, prepared.rebuild) if sharded else model, prepared, metrics)
