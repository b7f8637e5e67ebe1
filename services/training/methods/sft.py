"""Supervised fine-tuning through trl: packed rows, no padding, an exact number of steps."""

from collections.abc import Sequence
from itertools import chain
from typing import Any, Literal

from services.training.bases.capabilities import read_capabilities
from services.training.methods import held_out, model, rows
from services.training.methods.base import Prepared, StageContext, plan_steps, trainer_options
from services.training.methods.learned_loss import learned_loss
from services.training.methods.loading import has_gpu
from services.training.methods.stored_rows import pack_stored, require_fitting, store_bins, store_rows
from services.training.recipe import Recipe
from tailor.chat import Encoded
from tailor.errors import FailedPrecondition, Reason


def prepare(context: StageContext) -> Prepared:
    """A trainer over the dataset's conversations. Everything that the assistant says is learned."""
    recipe, inputs = context.recipe, context.inputs
    every = store_rows(inputs.train, context.tokenizer, context.folder)
    encoded = require_fitting(every, context.max_length)
    bins = pack_stored(encoded, recipe.batch.tokens, recipe.seed)
    steps = count_steps(bins, recipe)

    def build() -> Any:
        return model.trainable_model(inputs.base, recipe, inputs.parent)

    trainer = build_trainer(build(), context, bins, steps=steps)
    tokens = steps * recipe.batch.accumulation * int(encoded.lengths.sum()) // len(bins)
    measured = choose_held_out(context, tokens)
    return Prepared(
        trainer,
        steps,
        rows=len(encoded),
        skipped=every.skipped + len(every) - len(encoded),
        learned=encoded,
        rebuild=build,
        measure=lambda: {"held_out_loss": held_out.loss(trainer.model, measured)} if measured else {},
        compare=lambda: held_out.loss(trainer.model, measured),
        # Several processes would each have to measure, in step.
        compare_every=0 if context.processes.world > 1 else held_out.plan_measurements(steps, tokens, measured),
    )


def choose_held_out(context: StageContext, trained_tokens: int) -> list[Encoded]:
    """Held-out rows, always the same ones of a run; empty if the dataset has none that fit. A short run is not delayed by many of them."""
    encoded = store_rows(context.inputs.held_out, context.tokenizer, context.folder)
    affordable = max(held_out.MIN_TOKENS, held_out.count_affordable(trained_tokens))
    return held_out.choose_stored(encoded.keep_fitting(context.max_length), min(held_out.LOSS_TOKENS, affordable))


def count_steps(bins: Sequence[Sequence[Encoded]], recipe: Recipe) -> int:
    """The number of steps within the recipe's limits on these bins; at least 1."""
    return plan_steps(len(bins), max(sum(len(row.tokens) for row in packed) for packed in bins), recipe)


def build_trainer(model: Any, context: StageContext, bins: Sequence[Sequence[Encoded]], *, steps: int) -> Any:
    """A trl SFTTrainer over the bins, one bin per micro-batch. It saves checkpoints into the context's folder."""
    from peft.helpers import disable_input_dtype_casting
    from trl import SFTConfig, SFTTrainer

    recipe, meter, chunked = context.recipe, context.meter, has_gpu()
    packed = read_capabilities(context.inputs.base).packed
    if not packed and context.processes.world > 1:
        raise FailedPrecondition(
            Reason.CANNOT_SHARD,
            "Rows of this base are computed one by one, which several processes cannot do in step. Train it with one process.",
        )

    class PackedTrainer(SFTTrainer):  # type: ignore[misc]  # defined here, because importing trl takes seconds
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
            # The gradients of all processes are averaged, but the loss is already a mean over all tokens of the step.
            return (
                learned_loss(model, inputs, num_items_in_batch, packed=packed, chunked=chunked)
                * context.processes.world
            )

        def train(self, *args: Any, **options: Any) -> Any:
            """Train with the adapter's inputs in bf16; autocast would cast them back anyway."""
            with disable_input_dtype_casting(self.model, active=recipe.precision == "bf16"):
                return super().train(*args, **options)

    return PackedTrainer(
        model=model,
        args=SFTConfig(
            **trainer_options(recipe, steps, context.folder, processes=context.processes),
            padding_free=True,
            packing=False,
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=store_bins(chain(bins, rows.fill_bins(bins, recipe.batch.accumulation)), context.folder),
        processing_class=context.tokenizer,
    )
