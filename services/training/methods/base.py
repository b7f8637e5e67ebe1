"""The one shape of a training method: from a context it prepares a trainer, and says what its figures mean and how the result is proven.

Everything else (inputs, turns, checkpoints, stopping, saving, proof, reports) is the worker's, and knows no method.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from services.training.adapters.inputs import Inputs
from services.training.methods.processes import Processes
from services.training.methods.rows import Encoded
from services.training.methods.turns import Turns
from services.training.recipe import Recipe
from services.training.spec import WorkerSpec
from services.training.worker.callbacks import Meter, StepReport, Stopper
from services.training.worker.notes import Notes


@dataclass(frozen=True)
class Context:
    """What a method works with. `folder` is the trainer's output; the recipe's accumulation is that of all processes together. For work
    before its first step: `turns` and `stopper`, `notes` that outlive the worker, and `report`, which states a phase of its own."""

    spec: WorkerSpec
    recipe: Recipe
    found: Inputs
    tokenizer: Any
    folder: Path
    meter: Meter
    turns: Turns
    stopper: Stopper
    processes: Processes
    notes: Notes
    report: Callable[[str, StepReport], None]


@dataclass(frozen=True)
class Prepared:
    """A transformers Trainer that has not begun, and ends after `steps`. It counts the tokens of each micro-batch in the context's meter.

    `measure` is asked once, after the last step, on the trained model: held-out figures by name. `shown` says which entry of the trainer's
    log is the `reward`, `kl` or `accuracy` of a progress report. `learned` are rows that it learns from; a few of
    them help to prove what is saved, and are kept nowhere. `rebuild` makes the model anew as it was before training, where it can be
    trained in parts.
    """

    trainer: Any
    steps: int
    rows: int
    measure: Callable[[], dict[str, float]]
    learned: Sequence[Encoded] = ()
    rebuild: Callable[[], Any] | None = None
    kind: Literal["policy", "reward"] = "policy"
    shown: Mapping[str, str] = field(default_factory=dict)


Method = Callable[[Context], Prepared]
ALONE = Processes()


@dataclass(frozen=True)
class Plan:
    """How long a run is. `tokens` is at most what it trains on, padding there is none."""

    steps: int
    tokens: int


def plan_steps(batches: int, tokens_a_batch: int, recipe: Recipe) -> Plan:
    """The steps that the recipe's limits allow on so many micro-batches of at most so many tokens; at least one."""
    per_step = tokens_a_batch * recipe.batch.accumulation
    steps_an_epoch = -(-batches // recipe.batch.accumulation)
    steps = max(1, round(recipe.limit.epochs * steps_an_epoch))
    if recipe.limit.max_steps:
        steps = min(steps, recipe.limit.max_steps)
    if recipe.limit.max_tokens:
        steps = min(steps, max(1, recipe.limit.max_tokens // per_step))
    return Plan(steps, steps * per_step)


def trainer_options(
    recipe: Recipe, steps: int, folder: Path, *, processes: Processes = ALONE, micro_batch: int = 1
) -> dict[str, Any]:
    """What every trainer's configuration of a recipe has in common."""
    import torch

    schedule = recipe.optimizer.schedule
    return {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": micro_batch,
        "per_device_eval_batch_size": micro_batch,
        **processes.trainer_options(recipe),
        "learning_rate": recipe.optimizer.learning_rate,
        "lr_scheduler_type": schedule if schedule != "constant" else "constant_with_warmup",
        "warmup_steps": round(recipe.optimizer.warmup * steps),
        "weight_decay": recipe.optimizer.weight_decay,
        "max_grad_norm": recipe.optimizer.max_gradient_norm,
        "optim": "adamw_torch",
        "gradient_checkpointing": False,
        "bf16": recipe.precision != "f32",
        "use_cpu": not torch.cuda.is_available(),
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "save_strategy": "steps",
        "save_steps": recipe.checkpoint_every_steps,
        "logging_steps": 1,
        # A loss that is no number ends the run; transformers would say 0 instead.
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "dataloader_num_workers": 0,
        "disable_tqdm": True,
    }


def quieten(trainer: Any) -> None:
    """Take the callbacks off that print."""
    from transformers import PrinterCallback, ProgressCallback

    for printing in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(printing)
