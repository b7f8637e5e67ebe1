"""The interface of a training method: from a context it prepares a trainer, and says how its result is measured and proven.

Everything else (inputs, checkpoints, stopping, saving, reload check, reports) is the worker's, and independent of the method.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from services.training.adapters.inputs import Inputs
from services.training.methods.budget import Watch
from services.training.methods.engine import StartEngine, without_engine
from services.training.methods.loading import has_gpu, read_context, read_family, read_width
from services.training.methods.processes import Processes
from services.training.methods.stage_results import StageNotes
from services.training.rates import fit_base, fit_device
from services.training.recipe import Recipe
from services.training.spec import WorkerSpec
from tailor.api.events.v1 import models_pb2
from tailor.chat import Encoded
from tailor.hardware import computes_in_bf16
from tailor.logging import get_logger
from tailor.retry import retry

log = get_logger(__name__)

T = TypeVar("T")

SINGLE = Processes()
GIVE_UP_SECONDS = 900.0
MAX_WAIT_SECONDS = 5.0
# Steps by which the time left is estimated.
RECENT_STEPS = 10


@dataclass
class Meter:
    """Counts tokens against wall time, and remembers losses. Mutable: the trainer updates it at every step.

    `earlier_tokens` are the tokens that earlier workers of the run trained on, up to the checkpoint that this worker
    resumed from. `ends` are the newest steps with the times at which they ended; the first is the one before training.
    """

    tokens: int = 0
    earlier_tokens: int = 0
    started: float = 0.0
    ended: float = 0.0
    first_loss: float = 0.0
    last_loss: float = 0.0
    ends: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=RECENT_STEPS + 1))

    def begin(self, step: int, now: float) -> None:
        """Start the clock, after the step that training resumes from."""
        self.started = now
        self.ends.append((step, now))

    def end_step(self, step: int, now: float) -> None:
        """Note the end of a step."""
        self.ends.append((step, now))

    def count(self, tokens: int) -> None:
        """Add the tokens of a micro-batch."""
        self.tokens += tokens

    def rate(self) -> float:
        """Tokens per second since this worker began to train; 0 before that."""
        return self.tokens / max((self.ended or time.monotonic()) - self.started, 1e-6) if self.started else 0.0

    def remaining(self, step: int, total: int) -> float:
        """Seconds left at the pace of the newest steps, because the machine may have become busier or quieter; 0 before the first step."""
        if len(self.ends) < 2:
            return 0.0
        (first, began), (last, ended) = self.ends[0], self.ends[-1]
        return (total - step) * (ended - began) / max(1, last - first)


@dataclass(frozen=True)
class Stopper:
    """Whether the worker should end. `cancelled`: the run is not wanted. `must_save`: the run should resume later, elsewhere."""

    cancelled: Callable[[], bool]
    must_save: Callable[[], bool]


@dataclass(frozen=True)
class StageContext:
    """The inputs of a method.

    `folder` is the trainer's output directory. The recipe's accumulation is that of all processes together. `stopper`, `notes`,
    which later workers can read, and `report`, which takes a phase and a step's figures, are for work before the first step. `start_engine`
    starts the engine that writes rollouts, if there is one. The precision of `recipe` is fitted to the processor, its rate to the base and
    its steps to the device here, for every method: the card and the manifest of the result must name this recipe.
    """

    spec: WorkerSpec
    recipe: Recipe
    inputs: Inputs
    tokenizer: Any
    folder: Path
    meter: Meter
    stopper: Stopper
    processes: Processes
    notes: StageNotes
    report: Callable[[str, models_pb2.RunProgressed], None]
    start_engine: StartEngine = without_engine

    def __post_init__(self) -> None:
        fitted = self.recipe.fit_processor(bf16=computes_in_bf16())
        if fitted is not self.recipe:
            log.info("bf16 is emulated here, computing in f32 instead", precision=self.recipe.precision)
        fitted = fit_base(fitted, read_width(self.inputs.base), read_family(self.inputs.base))
        object.__setattr__(self, "recipe", fit_device(fitted, gpu=has_gpu()))

    @property
    def max_length(self) -> int:
        """Tokens of the longest row that may be trained on: the recipe's limit, or what the base reads."""
        return self.recipe.batch.max_length or read_context(self.inputs.base)


@dataclass(frozen=True)
class Prepared:
    """A transformers Trainer that has not started and ends after `steps` steps. It counts the tokens of each micro-batch in the meter.

    - `measure` is called once, after the last step, and returns held-out figures by name.
    - `shown` maps an optional figure of a progress report, such as `reward` or `kl`, to an entry of the trainer's log.
    - `learned` are rows that it learns from. A few of them help to prove the saved weights, and are not stored.
    - `skipped` counts the rows that are longer than the recipe or the base allows, or invalid.
    - `watch` checks each step against the recipe's budget; training ends at the first one that exceeds it.
    - `compare` measures held-out loss every `compare_every` steps, 0 for never, and the weights with the lowest one are the result.
    - `release` frees what only training needs, such as an engine that writes answers. Idempotent.
    - `extra_bytes` is the peak memory of what it frees, in addition to this process's.
    - `rebuild` builds the model again as it was before training, for methods whose model can be sharded.
    """

    trainer: Any
    steps: int
    rows: int
    measure: Callable[[], dict[str, float]]
    learned: Sequence[Encoded] = ()
    rebuild: Callable[[], Any] | None = None
    kind: Literal["policy", "reward"] = "policy"
    shown: Mapping[str, str] = field(default_factory=dict)
    skipped: int = 0
    watch: Watch | None = None
    compare: Callable[[], float] = lambda: 0.0
    compare_every: int = 0
    release: Callable[[], None] = lambda: None
    extra_bytes: Callable[[], int] = lambda: 0


Method = Callable[[StageContext], Prepared]


def plan_steps(batches: int, tokens_per_batch: int, recipe: Recipe) -> int:
    """The number of steps within the recipe's limits, for `batches` micro-batches of at most `tokens_per_batch` tokens; at least 1."""
    tokens_per_step = tokens_per_batch * recipe.batch.accumulation
    steps_per_epoch = -(-batches // recipe.batch.accumulation)
    steps = max(1, round(recipe.limit.epochs * steps_per_epoch))
    if recipe.limit.max_steps:
        steps = min(steps, recipe.limit.max_steps)
    if recipe.limit.max_tokens:
        steps = min(steps, max(1, recipe.limit.max_tokens // tokens_per_step))
    return steps


def trainer_options(
    recipe: Recipe, steps: int, folder: Path, *, processes: Processes = SINGLE, micro_batch: int = 1
) -> dict[str, Any]:
    """The part of a trainer's configuration that all methods share."""
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
        "gradient_checkpointing": recipe.batch.gradient_checkpointing == "on",
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "bf16": recipe.precision != "f32",
        "use_cpu": not has_gpu(),
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "save_strategy": "steps",
        "save_steps": recipe.checkpoint_every_steps,
        # The newest may still be uploaded while the next is written.
        "save_total_limit": 2,
        "logging_steps": 1,
        # A loss of NaN must end the run; with the filter, transformers would log 0 instead.
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "dataloader_num_workers": 0,
        "disable_tqdm": True,
    }


def remove_printers(trainer: Any) -> None:
    """Remove the callbacks that print."""
    from transformers import PrinterCallback, ProgressCallback

    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)


def retry_dependency(name: str, call: Callable[[], T], *, seconds: float = GIVE_UP_SECONDS) -> T:
    """The call's result, retried with backoff for up to `seconds` while the dependency is unavailable. Blocks."""
    return retry(
        call,
        give_up_seconds=seconds,
        max_seconds=MAX_WAIT_SECONDS,
        on_wait=lambda error, _: log.warning("worker waits", waiting_for=name, reason=error.reason),
    )
