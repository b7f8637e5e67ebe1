"""Only a recipe's trainer, without a service: `python -m bench.training_bare`.

Reads one line of JSON {base, train, recipe}. Prints a line of JSON {clock, loss} after each step, then waits until its input is closed.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.training_house import context
from services.training.methods import sft
from services.training.methods.base import remove_printers
from services.training.recipe import Recipe
from tailor.hardware import keep_freed_memory


def main() -> None:
    """Train, without checkpoints, reports or a compute lock."""
    keep_freed_memory()
    asked = json.loads(sys.stdin.readline())
    chosen = Recipe.model_validate_json(asked["recipe"])
    with tempfile.TemporaryDirectory() as folder:
        train = tuple(Path(path) for path in asked["train"])
        trainer = sft.prepare(context(Path(asked["base"]), train, chosen, Path(folder))).trainer
        remove_printers(trainer)
        trainer.args.save_strategy = "no"
        trainer.add_callback(_clock())
        trainer.train()
        sys.stdin.read()


def _clock() -> Any:
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        """Prints when each step has ended, and keeps the trainer from saving."""

        def on_step_end(self, _args: Any, _state: Any, control: Any, **_: Any) -> None:
            """Keep the trainer from saving."""
            control.should_save = False

        def on_log(self, _args: Any, _state: Any, _control: Any, logs: dict[str, float], **_: Any) -> None:
            """Print the step's loss."""
            if "loss" in logs:
                print(json.dumps({"clock": time.time(), "loss": logs["loss"]}), flush=True)

    return Clock()


if __name__ == "__main__":
    main()
