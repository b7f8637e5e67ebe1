"""A short trial of each learning rate; the one with the lowest held-out loss is trained in full.

Every trial starts where the run starts, with the same seed. What a trial found is noted, so a worker that takes over does not repeat it.
"""

import gc
import math
from dataclasses import replace
from typing import Any

from services.training.methods import sft
from services.training.methods.base import Context, Prepared, quieten
from services.training.methods.patience import patiently
from services.training.recipe import LimitRecipe, Recipe, SweepRecipe
from services.training.worker.callbacks import Meter, StepReport
from tailor.errors import Aborted, InvalidArgument, Reason, Unavailable
from tailor.logging import get_logger

log = get_logger(__name__)

TRIAL = "trial"  # the phase of a progress report


def prepare(context: Context) -> Prepared:
    """The trainer of the best rate. InvalidArgument (NO_HELD_OUT_ROWS, DIVERGED) where no rate can be chosen; Aborted or Unavailable
    (STOPPED) when told to stop in a trial."""
    sweep = context.recipe.sweep
    if sweep is None:
        raise InvalidArgument(Reason.INVALID_RECIPE, "The method sweep needs [sweep].")
    if not sft.choose_held_out(context):
        raise InvalidArgument(
            Reason.NO_HELD_OUT_ROWS,
            "A sweep compares rates by held-out loss, and the dataset has no held-out row that fits.",
        )
    outcomes = {rate: _outcome(context, rate, sweep) for rate in sweep.learning_rates}
    losses = {rate: loss for rate, loss in outcomes.items() if math.isfinite(loss)}
    if not losses:
        raise InvalidArgument(
            Reason.DIVERGED, "No learning rate of the sweep ends with a loss that is a number; try lower ones."
        )
    best = min(losses, key=lambda rate: (losses[rate], rate))
    log.info("learning rate chosen", learning_rate=best)
    prepared = sft.prepare(replace(context, recipe=_at(context.recipe, best)))
    found = {f"sweep_loss_at_{rate:g}": loss for rate, loss in losses.items()}
    return replace(prepared, measure=lambda: {**prepared.measure(), **found, "sweep_learning_rate": best})


def trial_recipe(recipe: Recipe, rate: float, share: float) -> Recipe:
    """The recipe at a rate, on a share of its tokens."""
    limit = recipe.limit
    shorter = LimitRecipe(
        epochs=limit.epochs * share,
        max_steps=math.ceil(limit.max_steps * share),
        max_tokens=math.ceil(limit.max_tokens * share),
    )
    return _at(recipe, rate).model_copy(update={"limit": shorter})


def _at(recipe: Recipe, rate: float) -> Recipe:
    return recipe.model_copy(update={"optimizer": recipe.optimizer.model_copy(update={"learning_rate": rate})})


def _outcome(context: Context, rate: float, sweep: SweepRecipe) -> float:
    name = f"sweep-{rate:g}"
    noted = patiently("object store", lambda: context.notes.read(name))
    if noted is not None:
        return float(noted)
    loss = _trial(replace(context, recipe=trial_recipe(context.recipe, rate, sweep.share), meter=Meter()), name)
    # Trainer and model refer to each other: without this, the next trial's model would stand beside the last one's.
    gc.collect()
    patiently("object store", lambda: context.notes.write(name, loss))
    return loss


def _trial(context: Context, name: str) -> float:
    folder = context.folder.with_name(f"{context.folder.name}-{name}")
    prepared = sft.prepare(replace(context, folder=folder))
    trainer = prepared.trainer
    trainer.args.save_strategy = "no"
    quieten(trainer)
    watching = _callback(context)
    trainer.add_callback(watching)
    trainer.train()
    if watching.diverged:
        return math.nan
    if trainer.state.global_step < prepared.steps:
        stopped = Aborted if context.stopper.cancelled() else Unavailable
        raise stopped(Reason.STOPPED, "The worker was told to stop during a trial; the trials before it are kept.")
    context.turns.take()
    measured = prepared.measure()
    context.turns.give()
    return measured["held_out_loss"]


def _callback(context: Context) -> Any:
    from transformers import TrainerCallback

    class TrialCallback(TrainerCallback):  # type: ignore[misc]
        """Called by the trial's trainer."""

        diverged = False

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Take the turn."""
            context.turns.take()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Give the turn, and stop where told to."""
            context.turns.give()
            told = context.stopper.cancelled() or context.stopper.must_save()
            control.should_training_stop = told or control.should_training_stop

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
            """Report the step. A loss that is no number ends the trial, not the run."""
            if not logs or "loss" not in logs:
                return
            loss, rate = float(logs["loss"]), context.recipe.optimizer.learning_rate
            if math.isfinite(loss):
                context.report(TRIAL, StepReport(state.global_step, state.max_steps, loss, rate))
            else:
                self.diverged = control.should_training_stop = True

    return TrialCallback()
