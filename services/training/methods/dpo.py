"""Direct preference optimisation through trl. What the stage starts from, parent or bare base, is also the reference."""

from collections.abc import Sequence
from typing import Any

from services.training.methods import model, pairs
from services.training.methods.base import Context, Prepared, trainer_options
from services.training.methods.held_out import answer_log_probabilities
from services.training.methods.pairs import Pair
from services.training.methods.rows import Encoded

REFERENCE = "ref"  # trl's name for the frozen copy of the adapter that training starts from


def prepare(context: Context) -> Prepared:
    """A trainer over the dataset's pairs."""
    recipe, found = context.recipe, context.found
    kept = pairs.fitting(pairs.read(found.train, context.tokenizer), recipe.batch)
    held_out = pairs.choose_held_out(found.held_out, context.tokenizer, recipe.batch)
    steps = pairs.plan(kept, recipe).steps
    trainer = _build(model.trainable_model(found.base, recipe, found.parent), context, kept, steps)
    return Prepared(
        trainer,
        steps,
        rows=len(kept),
        learned=[pair.chosen for pair in kept],
        measure=lambda: {"held_out_accuracy": accuracy(trainer.model, held_out)} if held_out else {},
        shown={"accuracy": "rewards/accuracies"},
    )


def accuracy(policy: Any, held_out: Sequence[Pair]) -> float:
    """The share of pairs whose chosen answer gained more over the reference than the rejected one."""
    policy.eval()
    gains = [_gain(policy, pair.chosen) - _gain(policy, pair.rejected) for pair in held_out]
    return sum(gain > 0 for gain in gains) / len(gains)


def _gain(policy: Any, answer: Encoded) -> float:
    from trl.trainer.utils import use_adapter

    ours = float(answer_log_probabilities(policy, answer).sum())
    with use_adapter(policy, REFERENCE):
        return ours - float(answer_log_probabilities(policy, answer).sum())


def _build(policy: Any, context: Context, kept: Sequence[Pair], steps: int) -> Any:
    from datasets import Dataset
    from peft.helpers import disable_input_dtype_casting
    from trl import DPOConfig, DPOTrainer

    recipe, meter = context.recipe, context.meter

    class PairTrainer(DPOTrainer):  # type: ignore[misc]  # a class of its own for each run, because importing trl takes seconds
        """trl's trainer over rows that are token ids already."""

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

        def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **options: Any) -> Any:
            """The loss of one micro-batch."""
            meter.count(int(inputs["attention_mask"].sum()))
            return super().compute_loss(model, inputs, *args, **options)

        def train(self, *args: Any, **options: Any) -> Any:
            """Train; the adapter's inputs stay in bf16, since autocast would cast them back anyway."""
            with disable_input_dtype_casting(self.model, active=recipe.precision == "bf16"):
                return super().train(*args, **options)

    size = pairs.micro_batch(kept, recipe.batch)
    return PairTrainer(
        model=policy,
        args=DPOConfig(
            **trainer_options(recipe, steps, context.folder, processes=context.processes, micro_batch=size),
            beta=recipe.dpo.beta,
            loss_type=[recipe.dpo.loss],
            max_length=None,
        ),
        train_dataset=Dataset.from_dict(_columns(kept)),
        processing_class=context.tokenizer,
    )


def _columns(kept: Sequence[Pair]) -> dict[str, list[list[int]]]:
    return {
        "prompt_ids": [list(pair.chosen.tokens[: pair.chosen.prompt_length]) for pair in kept],
        "chosen_ids": [list(pair.chosen.tokens[pair.chosen.prompt_length :]) for pair in kept],
        "rejected_ids": [list(pair.rejected.tokens[pair.rejected.prompt_length :]) for pair in kept],
    }
