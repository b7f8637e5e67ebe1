"""`python -m tests.bench.training_bare`: a recipe's trainer alone. Reads JSON {base, train, recipe}; prints when its steps ended."""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from services.training.adapters import sft
from services.training.adapters.memory import keep_freed_memory
from services.training.recipe import Recipe
from tests.bench.training_house import context


def main() -> None:
    """Train, and say when each step ended, and the CPU seconds from the end of the first to the end of the last."""
    keep_freed_memory()
    asked = json.loads(sys.stdin.read())
    chosen = Recipe.model_validate_json(asked["recipe"])
    with tempfile.TemporaryDirectory() as folder:
        made = context(Path(asked["base"]), Path(asked["train"]), chosen, Path(folder))
        print(json.dumps(_timed(sft.prepare(made).trainer)))


def _timed(trainer: Any) -> dict[str, Any]:
    from transformers import PrinterCallback, TrainerCallback

    ends: list[tuple[float, float]] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        """Notes when each step ends, and keeps the trainer from saving."""

        def on_step_end(self, _args: Any, _state: Any, control: Any, **_: Any) -> None:
            """A step has ended."""
            ends.append((time.perf_counter(), time.process_time()))
            control.should_save = False

    trainer.args.save_strategy = "no"
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Clock())
    trainer.train()
    return {"ends": [end for end, _ in ends], "cpu_seconds": ends[-1][1] - ends[0][1]}


if __name__ == "__main__":
    main()
