"""The trainer's callback for a budget: keeps the newest weights within it, and ends training beyond it. Importing it takes seconds."""

from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from services.training.methods.budget import Watch
from tailor.logging import get_logger

log = get_logger(__name__)

# Part of a checkpoint, with the number of steps that the weights were trained for.
FILE, STEP = "within_budget.safetensors", "step"


class BudgetCallback(TrainerCallback):  # type: ignore[misc]
    """Called by the trainer, in its thread. `checkpoint` is the folder that training resumes from, or None.

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
