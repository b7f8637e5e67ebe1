"""Direct preference optimisation through trl (Rafailov et al. 2023, arXiv:2305.18290). The reference is the stage's start."""

from collections.abc import Sequence
from typing import Any

from services.training.methods import model, pairs
from services.training.methods.base import Prepared, StageContext, trainer_options
from services.training.methods.held_out import answer_log_probabilities
from services.training.methods.pairs import Pair
from services.training.recipe import DpoRecipe
from tailor.chat import Encoded

REFERENCE = "ref"  # trl's name for the frozen copy of the adapter that training starts from


def prepare(context: StageContext) -> Prepared:
    """A trainer over the dataset's pairs."""
    recipe, inputs = context.recipe, context.inputs
    every, skipped = pairs.read(inputs.train, context.tokenizer)
    train = pairs.keep_fitting(every, recipe.batch, context.max_length)
    held_out = pairs.choose_held_out(inputs.held_out, context.tokenizer, context.max_length)
    steps = pairs.count_steps(train, recipe)
    trainer = _build_trainer(model.trainable_model(inputs.base, recipe, inputs.parent), context, train, steps)
    return Prepared(
        trainer,
        steps,
        rows=len(train),
        skipped=skipped + len(every) - len(train),
        learned=[pair.chosen for pair in train],
        measure=lambda: {"held_out_accuracy": accuracy(trainer.model, held_out)} if held_out else {},
        shown={"accuracy": "rewards/accuracies"},
    )


def accuracy(policy: Any, held_out: Sequence[Pair]) -> float:
    """Share of pairs whose chosen answer gained more log-probability over the reference than the rejected one."""
    policy.eval()
    gains = [_gain(policy, pair.chosen) - _gain(policy, pair.rejected) for pair in held_out]
    return sum(gain > 0 for gain in gains) / len(gains)


def _gain(policy: Any, answer: Encoded) -> float:
    """log p(answer) under the policy minus under the reference, in nats."""
    from trl.trainer.utils import use_adapter

    trained = float(answer_log_probabilities(policy, answer).sum())
    with use_adapter(policy, REFERENCE):
        return trained - float(answer_log_probabilities(policy, answer).sum())


def _build_trainer(policy: Any, context: StageContext, train: Sequence[Pair], steps: int) -> Any:
    from datasets import Dataset
    from peft.helpers import disable_input_dtype_casting
    from trl import DPOConfig, DPOTrainer

    recipe, meter = context.recipe, context.meter

    class PreferenceTrainer(DPOTrainer):  # type: ignore[misc]  # defined here, because importing trl takes seconds
        """trl's trainer over rows that are already token ids."""

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

        def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **options: Any) -> Any:
            """The loss of one micro-batch."""
            meter.count(int(inputs["attention_mask"].sum()))
            return super().compute_loss(model, inputs, *args, **options)

        def train(self, *args: Any, **options: Any) -> Any:
            """Train with the adapter's inputs in bf16; autocast would cast them back anyway."""
            with disable_input_dtype_casting(self.model, active=recipe.precision == "bf16"):
                return super().train(*args, **options)

    size = pairs.pairs_per_batch(train, recipe.batch)
    return PreferenceTrainer(
        model=policy,
        args=DPOConfig(
            **trainer_options(recipe, steps, context.folder, processes=context.processes, micro_batch=size),
            **_loss_options(recipe.dpo),
            max_length=None,
        ),
        train_dataset=Dataset.from_dict(_to_columns(train)),
        processing_class=context.tokenizer,
    )


def _loss_options(dpo: DpoRecipe) -> dict[str, Any]:
    """trl's options of the loss. Its loss `sft` is the mean negative log-likelihood of the chosen answers' tokens."""
    weights = {dpo.loss: 1.0} | ({"sft": dpo.nll} if dpo.nll else {})
    return {
        "beta": dpo.beta,
        "loss_type": [*weights],
        "loss_weights": [*weights.values()],
        "ld_alpha": dpo.length_weight if dpo.length_weight < 1.0 else None,
    }


def _to_columns(train: Sequence[Pair]) -> dict[str, list[list[int]]]:
    return {
        "prompt_ids": [list(pair.chosen.tokens[: pair.chosen.prompt_length]) for pair in train],
        "chosen_ids": [list(pair.chosen.tokens[pair.chosen.prompt_length :]) for pair in train],
        "rejected_ids": [list(pair.rejected.tokens[pair.rejected.prompt_length :]) for pair in train],
    }
