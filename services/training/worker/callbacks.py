"""The trainer's callback: reports, checkpoints and stopping. Importing it imports transformers, which takes seconds."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from services.training.methods.base import StageContext, retry_dependency
from services.training.worker.checkpoints import Checkpoints, Uploads
from tailor.api.events.v1 import models_pb2


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
        """Store the trainer's checkpoint in the background; not after the last step, because the adapter follows at once."""
        if self._cancelled or state.global_step >= state.max_steps:
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        self._processes.gather_generators(folder)
        if self._processes.first:
            tokens = self._meter.earlier_tokens + self._meter.tokens
            save = partial(self._checkpoints.save, state.global_step, folder, tokens)
            self._uploads.begin(partial(retry_dependency, "object store", save))
