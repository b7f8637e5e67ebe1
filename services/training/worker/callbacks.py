"""The trainer's callbacks: reports, checkpoints, stopping, and budgets. Importing them imports transformers, which takes seconds."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from services.training.methods.base import StageContext, retry_dependency
from services.training.methods.budget import Watch
from services.training.worker.checkpoints import Checkpoints, Uploads
from tailor.api.events.v1 import models_pb2
from tailor.logging import get_logger

log = get_logger(__name__)

# Part of a checkpoint, with the number of steps that the weights were trained for.
FILE, STEP = "within_budget.safetensors", "step"


class StepCallback(TrainerCallback):  # type: ignore[misc]
    """Called by the trainer, in its thread. `shown` maps figures of a report to entries of the trainer's log."""

    def __init__(
        self,
        context: StageContext,
        checkpoints: Checkpoints,
        *,
        report: Callable[[models_pb2.RunProgressed], None],
        shown: Mapping[str, str],
    ) -> None:
        self._meter = context.meter
        self._stopper = context.stopper
        self._processes = context.processes
        self._checkpoints = checkpoints
        self._report = report
        self._shown = shown
        self._uploads = Uploads()
        self._tokens_before = 0
        self._cancelled = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock."""
        self._meter.begin(state.global_step, time.monotonic())

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop the clock, after the last checkpoint is stored."""
        self._uploads.finish()
        self._meter.ended = time.monotonic()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Remember the tokens until here."""
        self._tokens_before = self._meter.tokens

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note the time, add the other processes' tokens, and stop if one process was asked to."""
        self._meter.end_step(state.global_step, time.monotonic())
        tokens = self._meter.tokens - self._tokens_before
        self._meter.tokens += self._processes.total(tokens) - tokens
        self._cancelled = self._processes.any(self._stopper.cancelled())
        if self._cancelled:
            control.should_training_stop = True
        elif self._processes.any(self._stopper.must_save()) and state.global_step < state.max_steps:
            control.should_save = True
            control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Report the step."""
        if not logs or "loss" not in logs:
            return
        self._meter.last_loss = float(logs["loss"])
        self._meter.first_loss = self._meter.first_loss or self._meter.last_loss
        step = models_pb2.RunProgressed(
            step=state.global_step,
            total_steps=state.max_steps,
            loss=self._meter.last_loss,
            learning_rate=float(logs.get("learning_rate", 0.0)),
            gradient_norm=float(logs.get("grad_norm", 0.0)),
        )
        for name, entry in self._shown.items():
            if entry in logs:
                setattr(step, name, float(logs[entry]))
        self._report(step)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Store the trainer's checkpoint in the background.

        Sharded weights are not stored after the last step: nothing could load them there without another step.
        """
        if self._cancelled or (state.global_step >= state.max_steps and self._processes.sharded):
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        self._processes.gather_generators(folder)
        if self._processes.first:
            tokens = self._meter.earlier_tokens + self._meter.tokens
            save = partial(self._checkpoints.save, state.global_step, folder, tokens)
            self._uploads.begin(partial(retry_dependency, "object store", save))


class BudgetCallback(TrainerCallback):  # type: ignore[misc]
    """Keeps the newest weights within a budget, and ends training beyond it.

    Called by the trainer, in its thread. `checkpoint` is the folder that training resumes from, or None.

    The answers of a step are written by the weights before it. So each step decides on the weights that it began with.
    """

    def __init__(self, model: Any, watch: Watch, checkpoint: Path | None) -> None:
        self._model = model
        self._watch = watch
        self._checkpoint = checkpoint
        self._kept: dict[str, Any] = {}
        self._tried: dict[str, Any] = {}
        self._tried_step = 0
        self._warned = False
        self.kept_step = 0
        self.exceeded = ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Read what an earlier worker kept; otherwise keep the weights as they are."""
        path = self._checkpoint / FILE if self._checkpoint else None
        if path is None or not path.exists():
            self._kept, self.kept_step = self._copy(), state.global_step
            return
        self._kept = load_file(path)
        with safe_open(path, "pt") as file:
            self.kept_step = int(file.metadata()[STEP])

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Copy the weights that write this step's answers."""
        self._tried, self._tried_step = self._copy(), state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Keep the step's weights if they are within the budget. Otherwise restore the kept ones and end training, without a checkpoint."""
        if not logs or "loss" not in logs:
            return
        check = self._watch(state.log_history)
        if check.warning and not self._warned:
            log.warning("answers drift", step=state.global_step, why=check.warning)
            self._warned = True
        if check.exceeded:
            self._restore()
            self.exceeded = check.exceeded
            log.warning("budget exceeded", step=state.global_step, kept_step=self.kept_step, why=check.exceeded)
            control.should_training_stop, control.should_save = True, False
        elif check.measured:
            self._kept, self.kept_step = self._tried, self._tried_step

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Add the kept weights to the checkpoint."""
        path = Path(args.output_dir) / f"checkpoint-{state.global_step}" / FILE
        save_file(self._kept, path, metadata={STEP: str(self.kept_step)})

    def _copy(self) -> dict[str, Any]:
        """The trained weights, in the CPU's memory."""
        return {
            name: weights.detach().to("cpu", copy=True).contiguous()
            for name, weights in self._model.named_parameters()
            if weights.requires_grad
        }

    def _restore(self) -> None:
        for name, weights in self._kept.items():
            self._model.get_parameter(name).data.copy_(weights)
