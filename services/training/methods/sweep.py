"""A short trial of each learning rate; the one with the lowest held-out loss is then trained in full.

Every trial starts where the run starts, with the same seed. Its result is noted, so a worker that resumes the run does not repeat it.
"""

import math
from dataclasses import replace
from typing import Any

from services.training.methods import sft
from services.training.methods.base import (
    Meter,
    Prepared,
    StageContext,
    remove_printers,
    retry_dependency,
)
from services.training.methods.memory import free_memory
from services.training.recipe import LimitRecipe, Recipe, SweepRecipe
from tailor.api.events.v1 import models_pb2
from tailor.errors import Aborted, InvalidArgument, Reason, Unavailable
from tailor.logging import get_logger

log = get_logger(__name__)

TRIAL = "trial"  # the phase of a progress report


def prepare(context: StageContext) -> Prepared:
    """Run the trials and prepare the trainer of the best rate. Blocks for the duration of the trials.

    Raises InvalidArgument (NO_HELD_OUT_ROWS, DIVERGED) if no rate can be chosen; Aborted or Unavailable (STOPPED) if the worker is asked to
    stop during a trial.
    """
    sweep = context.recipe.sweep
    if sweep is None:
        raise InvalidArgument(Reason.INVALID_RECIPE, "The method sweep needs [sweep].")
    if not sft.choose_held_out(context, 0):
        raise InvalidArgument(
            Reason.NO_HELD_OUT_ROWS,
            "A sweep compares rates by held-out loss, but the dataset has no held-out row that fits.",
        )
    outcomes = {rate: _find_outcome(context, rate, sweep) for rate in list_rates(context.recipe, sweep)}
    losses = {rate: loss for rate, loss in outcomes.items() if math.isfinite(loss)}
    if not losses:
        raise InvalidArgument(
            Reason.DIVERGED, "Every learning rate of the sweep ended with a loss that is not finite. Try lower rates."
        )
    best = min(losses, key=lambda rate: (losses[rate], rate))
    log.info("learning rate chosen", learning_rate=best)
    prepared = sft.prepare(replace(context, recipe=context.recipe.with_rate(best)))
    metrics = {f"sweep_loss_at_{rate:g}": loss for rate, loss in losses.items()}
    return replace(prepared, measure=lambda: {**prepared.measure(), **metrics, "sweep_learning_rate": best})


def list_rates(recipe: Recipe, sweep: SweepRecipe) -> list[float]:
    """The rates to try, to six digits."""
    return [float(f"{factor * recipe.optimizer.learning_rate:g}") for factor in sweep.factors]


def trial_recipe(recipe: Recipe, rate: float, share: float) -> Recipe:
    """The recipe with a rate, on a share of its tokens."""
    limit = recipe.limit
    shorter = LimitRecipe(
        epochs=limit.epochs * share,
        max_steps=math.ceil(limit.max_steps * share),
        max_tokens=math.ceil(limit.max_tokens * share),
    )
    return recipe.with_rate(rate).model_copy(update={"limit": shorter})


def _find_outcome(context: StageContext, rate: float, sweep: SweepRecipe) -> float:
    """The held-out loss at a rate, as noted by an earlier worker or by a trial now."""
    name = f"sweep-{rate:g}"
    noted = retry_dependency("object store", lambda: context.notes.read(name))
    if noted is not None:
        return float(noted)
    loss = _run_trial(replace(context, recipe=trial_recipe(context.recipe, rate, sweep.share), meter=Meter()), name)
    # Without this, two models would be in memory during the next trial.
    free_memory()
    retry_dependency("object store", lambda: context.notes.write(name, loss))
    return loss


def _run_trial(context: StageContext, name: str) -> float:
    folder = context.folder.with_name(f"{context.folder.name}-{name}")
    prepared = sft.prepare(replace(context, folder=folder))
    trainer = prepared.trainer
    trainer.args.save_strategy = "no"
    remove_printers(trainer)
    callback = _make_callback(context)
    trainer.add_callback(callback)
    trainer.train()
    if callback.diverged:
        return math.nan
    if trainer.state.global_step < prepared.steps:
        stopped = Aborted if context.stopper.cancelled() else Unavailable
        raise stopped(Reason.STOPPED, "The worker was asked to stop during a trial. The finished trials are stored.")
    return prepared.measure()["held_out_loss"]


def _make_callback(context: StageContext) -> Any:
    from transformers import TrainerCallback

    class TrialCallback(TrainerCallback):  # type: ignore[misc]  # defined here, because importing transformers takes seconds
        """Called by the trial's trainer."""

        diverged = False

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Stop if asked to."""
            must_stop = context.stopper.cancelled() or context.stopper.must_save()
            control.should_training_stop = must_stop or control.should_training_stop

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
            """Report the step. A loss that is not finite ends the trial, not the run."""
            if not logs or "loss" not in logs:
                return
            loss = float(logs["loss"])
            if not math.isfinite(loss):
                self.diverged = control.should_training_stop = True
                return
            step = models_pb2.RunProgressed(
                step=state.global_step,
                total_steps=state.max_steps,
                loss=loss,
                learning_rate=context.recipe.optimizer.learning_rate,
            )
            context.report(TRIAL, step)

    return TrialCallback()
