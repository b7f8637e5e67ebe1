"""What happens at each step beside the training: turns, reports, checkpoints, and stopping when told."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from services.training.methods.patience import patiently
from services.training.methods.processes import Processes
from services.training.methods.turns import Turns
from services.training.worker.checkpoints import Checkpoints
from services.training.worker.uploads import Uploads


@dataclass
class Meter:
    """Counts tokens against wall time, and remembers losses. Mutable: the trainer writes it at every step. `earlier_tokens` are those that
    earlier workers of the run trained on, as far as this one goes on from them."""

    tokens: int = 0
    earlier_tokens: int = 0
    started: float = 0.0
    ended: float = 0.0
    first_step: int = 0
    first_loss: float = 0.0
    last_loss: float = 0.0

    def count(self, tokens: int) -> None:
        """Add a micro-batch."""
        self.tokens += tokens

    def rate(self) -> float:
        """Tokens a second from when this worker began to train until now, or until it ended."""
        return self.tokens / max((self.ended or time.monotonic()) - self.started, 1e-6) if self.started else 0.0

    def remaining(self, step: int, total: int) -> float:
        """Seconds left at this worker's pace."""
        done = step - self.first_step
        return (total - step) * (time.monotonic() - self.started) / done if done > 0 else 0.0


@dataclass(frozen=True)
class StepReport:
    """One step's figures."""

    step: int
    total: int
    loss: float
    learning_rate: float = 0.0
    gradient_norm: float = 0.0
    reward: float | None = None
    kl: float | None = None
    accuracy: float | None = None


@dataclass(frozen=True)
class Stopper:
    """Whether the worker should end. `cancelled`: going on is useless. `must_save`: the run should go on later, elsewhere."""

    cancelled: Callable[[], bool]
    must_save: Callable[[], bool]


def make_callback(
    meter: Meter,
    turns: Turns,
    checkpoints: Checkpoints,
    stopper: Stopper,
    *,
    processes: Processes,
    report: Callable[[StepReport], None],
    shown: Mapping[str, str],
) -> Any:
    """The trainer's callback; `shown` names the entries of its log that are figures of a report. Made in a function, because importing
    transformers takes seconds."""
    from transformers import TrainerCallback

    uploads = Uploads()

    class StepCallback(TrainerCallback):  # type: ignore[misc]
        """Called by the trainer, in its thread."""

        tokens = 0
        cancelled = False

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Time starts with the first step."""
            meter.started, meter.first_step = time.monotonic(), state.global_step

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Time ends with the last step, and once the last checkpoint is whole."""
            uploads.finish()
            meter.ended = time.monotonic()

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Take the turn."""
            turns.take()
            self.tokens = meter.tokens

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Give the turn, and stop where told to."""
            turns.give()
            mine = meter.tokens - self.tokens
            meter.tokens += processes.total(mine) - mine
            self.cancelled = processes.any(stopper.cancelled())
            if self.cancelled:
                control.should_training_stop = True
            elif processes.any(stopper.must_save()) and state.global_step < state.max_steps:
                control.should_save = True
                control.should_training_stop = True

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
            """Report the step."""
            if not logs or "loss" not in logs:
                return
            meter.last_loss = float(logs["loss"])
            meter.first_loss = meter.first_loss or meter.last_loss
            rate, norm = float(logs.get("learning_rate", 0.0)), float(logs.get("grad_norm", 0.0))
            figures = {name: float(logs[entry]) for name, entry in shown.items() if entry in logs}
            report(StepReport(state.global_step, state.max_steps, meter.last_loss, rate, norm, **figures))

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Store what the trainer saved, while it goes on, unless it was the last step: the adapter follows at once."""
            if self.cancelled or state.global_step >= state.max_steps:
                return
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            processes.bring_generators(folder)
            if processes.first:
                tokens = meter.earlier_tokens + meter.tokens
                save = partial(checkpoints.save, state.global_step, folder, tokens)
                uploads.begin(partial(patiently, "object store", save))

    return StepCallback()
