"""The trainer's callbacks: reports, checkpoints, stopping, and budgets. Importing them imports transformers, which takes seconds."""

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from services.training.methods.base import Prepared, StageContext, retry_dependency
from services.training.methods.budget import Watch
from services.training.worker.checkpoints import Checkpoints, Uploads
from tailor.api.events.v1 import models_pb2
from tailor.logging import get_logger

log = get_logger(__name__)

# Measurements of held-out loss in a row without a new lowest one, after which training ends.
PATIENCE = 3
# The name in a report and in the trainer's log.
HELD_OUT_LOSS = "held_out_loss"


class KeptWeights:
    """The trained weights of one step, in the CPU's memory. `facts` are numbers about them. Part of a checkpoint, as a file."""

    def __init__(self, model: Any, file: str) -> None:
        self._model = model
        self._file = file
        self._weights: dict[str, Any] = {}
        self.facts: dict[str, float] = {}

    def keep(self, **facts: float) -> None:
        """Copy the weights as they are."""
        self.put(self.copy(), **facts)

    def put(self, weights: dict[str, Any], **facts: float) -> None:
        """Keep a copy that was made before."""
        self._weights, self.facts = weights, facts

    def copy(self) -> dict[str, Any]:
        """A copy of the trained weights."""
        return {
            name: weights.detach().to("cpu", copy=True).contiguous()
            for name, weights in self._model.named_parameters()
            if weights.requires_grad
        }

    def restore(self) -> None:
        """Give the model the kept weights."""
        for name, weights in self._weights.items():
            self._model.get_parameter(name).data.copy_(weights)

    def load(self, checkpoint: Path | None) -> bool:
        """Read what an earlier worker kept; False if there is nothing."""
        path = checkpoint / self._file if checkpoint else None
        if path is None or not path.exists():
            return False
        self._weights = load_file(path)
        with safe_open(path, "pt") as file:
            self.facts = {name: float(fact) for name, fact in file.metadata().items()}
        return True

    def save(self, checkpoint: Path) -> None:
        """Add the weights to a checkpoint, if some are kept."""
        if self._weights:
            facts = {name: repr(fact) for name, fact in self.facts.items()}
            save_file(self._weights, checkpoint / self._file, metadata=facts)


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
        self._shown = {**shown, HELD_OUT_LOSS: HELD_OUT_LOSS}
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
        self._watch = watch
        self._checkpoint = checkpoint
        self._kept = KeptWeights(model, "within_budget.safetensors")
        self._tried: dict[str, Any] = {}
        self._tried_step = 0
        self._warned = False
        self.exceeded = ""

    @property
    def kept_step(self) -> int:
        """The number of steps that the kept weights were trained for."""
        return int(self._kept.facts.get("step", 0))

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Read what an earlier worker kept; otherwise keep the weights as they are."""
        if not self._kept.load(self._checkpoint):
            self._kept.keep(step=state.global_step)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Copy the weights that write this step's answers."""
        self._tried, self._tried_step = self._kept.copy(), state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Keep the step's weights if they are within the budget. Otherwise restore the kept ones and end training, without a checkpoint."""
        if not logs or "loss" not in logs:
            return
        check = self._watch(state.log_history)
        if check.warning and not self._warned:
            log.warning("answers drift", step=state.global_step, why=check.warning)
            self._warned = True
        if check.exceeded:
            self._kept.restore()
            self.exceeded = check.exceeded
            log.warning("budget exceeded", step=state.global_step, kept_step=self.kept_step, why=check.exceeded)
            control.should_training_stop, control.should_save = True, False
        elif check.measured:
            self._kept.put(self._tried, step=self._tried_step)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Add the kept weights to the checkpoint."""
        self._kept.save(Path(args.output_dir) / f"checkpoint-{state.global_step}")


class BestCallback(TrainerCallback):  # type: ignore[misc]
    """Keeps the weights with the lowest held-out loss, and ends training once PATIENCE measurements in a row found no lower one.

    Called by the trainer, in its thread, before the callbacks that report and store what it adds. `checkpoint` is the folder that training
    resumes from, or None.
    """

    def __init__(self, prepared: Prepared, checkpoint: Path | None) -> None:
        self._compare = prepared.compare
        self._every = prepared.compare_every
        self._best = KeptWeights(prepared.trainer.model, "best.safetensors")
        self._best.load(checkpoint)
        self._measured: float | None = None

    @property
    def best_step(self) -> int:
        """The number of steps that the best weights were trained for; 0 before the first measurement."""
        return int(self._best.facts.get("step", 0))

    @property
    def stopped_because(self) -> str:
        """Why training ends before its last step; empty if it does not."""
        if self._best.facts.get("worse", 0) < PATIENCE:
            return ""
        return f"The held-out loss was not below that of step {self.best_step} in {PATIENCE} measurements."

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure, and keep the weights if they are the best so far. A run that ends here is stored, so that it ends here again."""
        if state.global_step % self._every and state.global_step < state.max_steps:
            return
        loss = self._measured = self._compare()
        facts = self._best.facts
        if loss < facts.get("loss", math.inf):
            self._best.keep(step=state.global_step, loss=loss, worse=0)
            return
        facts["worse"] = facts.get("worse", 0) + 1
        if self.stopped_because:
            control.should_training_stop = control.should_save = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Add what was measured to the step's figures, for the callbacks that follow."""
        if self._measured is not None and logs is not None:
            logs[HELD_OUT_LOSS], self._measured = self._measured, None

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Add the best weights to the checkpoint."""
        self._best.save(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    def restore(self) -> None:
        """Give the model the best weights."""
        self._best.restore()
