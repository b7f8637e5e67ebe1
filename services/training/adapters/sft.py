"""Supervised fine-tuning through trl: packed rows, no padding, exact steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from services.training.adapters.callbacks import Meter
from services.training.adapters.exact_speed import learned_loss
from services.training.adapters.rows import Encoded, to_columns
from services.training.recipe import Recipe


@dataclass(frozen=True)
class Plan:
    """How long a run is. `tokens` is at most what it trains on, padding there is none."""

    steps: int
    tokens: int


def plan(bins: Sequence[Sequence[Encoded]], recipe: Recipe) -> Plan:
    """The steps that the recipe's limits allow on these bins; at least one."""
    sizes = [sum(len(row.tokens) for row in rows) for rows in bins]
    per_step = max(sizes) * recipe.batch.accumulation
    steps_an_epoch = -(-len(bins) // recipe.batch.accumulation)
    steps = max(1, round(recipe.limit.epochs * steps_an_epoch))
    if recipe.limit.max_steps:
        steps = min(steps, recipe.limit.max_steps)
    if recipe.limit.max_tokens:
        steps = min(steps, max(1, recipe.limit.max_tokens // per_step))
    return Plan(steps, steps * per_step)


def build_trainer(
    model: Any,
    tokenizer: Any,
    bins: Sequence[Sequence[Encoded]],
    recipe: Recipe,
    *,
    steps: int,
    folder: Path,
    meter: Meter,
    callbacks: list[Any],
) -> Any:
    """A trl SFTTrainer over the bins: one bin a micro-batch. It checkpoints into `folder`."""
    from datasets import Dataset
    from peft.helpers import disable_input_dtype_casting
    from transformers import PrinterCallback, ProgressCallback
    from trl import SFTTrainer

    class PackedTrainer(SFTTrainer):  # type: ignore[misc]  # a class of its own for each run, because importing trl takes seconds
        """trl's trainer with the loss over learned tokens only."""

        def compute_loss(
            self,
            model: Any,
            inputs: dict[str, Any],
            return_outputs: Literal[False] = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            """The loss of one bin."""
            del return_outputs
            meter.count(inputs["input_ids"].numel())
            return learned_loss(model, inputs, num_items_in_batch)

        def train(self, *args: Any, **options: Any) -> Any:
            """Train; the adapter's inputs stay in bf16, since autocast would cast them back anyway."""
            with disable_input_dtype_casting(self.model, active=recipe.precision == "bf16"):
                return super().train(*args, **options)

    trainer = PackedTrainer(
        model=model,
        args=_arguments(recipe, steps, folder),
        train_dataset=Dataset.from_dict(to_columns(bins)),
        processing_class=tokenizer,
        callbacks=callbacks,
    )
    for printing in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(printing)
    return trainer


def _arguments(recipe: Recipe, steps: int, folder: Path) -> Any:
    import torch
    from trl import SFTConfig

    return SFTConfig(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=recipe.batch.accumulation,
        learning_rate=recipe.optimizer.learning_rate,
        lr_scheduler_type=recipe.optimizer.schedule
        if recipe.optimizer.schedule != "constant"
        else "constant_with_warmup",
        warmup_steps=round(recipe.optimizer.warmup * steps),
        weight_decay=recipe.optimizer.weight_decay,
        max_grad_norm=recipe.optimizer.max_gradient_norm,
        optim="adamw_torch",
        padding_free=True,
        packing=False,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        gradient_checkpointing=False,
        bf16=recipe.precision != "f32",
        use_cpu=not torch.cuda.is_available(),
        seed=recipe.seed,
        data_seed=recipe.seed,
        save_strategy="steps",
        save_steps=recipe.checkpoint_every_steps,
        logging_steps=1,
        report_to="none",
        dataloader_num_workers=0,
        disable_tqdm=True,
    )
