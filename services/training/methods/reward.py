"""A reward model through trl: it learns to give the answer that was chosen more than the one that was rejected."""

from collections.abc import Sequence
from typing import Any

from services.training.methods import pairs
from services.training.methods.base import Context, Prepared, trainer_options
from services.training.methods.pairs import Pair
from services.training.methods.parents import check_parent
from services.training.methods.reward_model import HEAD, padding, scores, trainable_scorer


def prepare(context: Context) -> Prepared:
    """A trainer over the dataset's pairs. A parent gives the adapter's matrices to start from."""
    recipe, found = context.recipe, context.found
    if found.parent is not None:
        check_parent(recipe, found.parent)
    kept = pairs.fitting(pairs.read(found.train, context.tokenizer), recipe.batch)
    held_out = pairs.choose_held_out(found.held_out, context.tokenizer, recipe.batch)
    steps = pairs.plan(kept, recipe).steps
    trainer = _build(trainable_scorer(found.base, recipe, found.parent), context, kept, steps)
    return Prepared(
        trainer,
        steps,
        rows=len(kept),
        learned=[pair.chosen for pair in kept],
        measure=lambda: {"reward_accuracy": accuracy(trainer.model, held_out)} if held_out else {},
        kind="reward",
        shown={"accuracy": "accuracy", "reward": "mean_reward"},
    )


def accuracy(scorer: Any, held_out: Sequence[Pair]) -> float:
    """The share of pairs whose chosen answer gets the higher reward."""
    scorer.eval()
    rewards = [
        (scores(scorer, [pair.chosen.tokens])[0], scores(scorer, [pair.rejected.tokens])[0]) for pair in held_out
    ]
    return sum(chosen > rejected for chosen, rejected in rewards) / len(rewards)


def _build(scorer: Any, context: Context, kept: Sequence[Pair], steps: int) -> Any:
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    recipe, meter = context.recipe, context.meter

    class PairTrainer(RewardTrainer):  # type: ignore[misc]  # a class of its own for each run, because importing trl takes seconds
        """trl's trainer, counting tokens."""

        def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **options: Any) -> Any:
            """The loss of one micro-batch."""
            meter.count(int(inputs["attention_mask"].sum()))
            return super().compute_loss(model, inputs, *args, **options)

    tokenizer = context.tokenizer
    tokenizer.pad_token_id = padding(tokenizer)
    size = pairs.micro_batch(kept, recipe.batch)
    trainer = PairTrainer(
        model=scorer,
        args=RewardConfig(
            **trainer_options(recipe, steps, context.folder, processes=context.processes, micro_batch=size),
            max_length=None,
        ),
        train_dataset=Dataset.from_dict(
            {
                "chosen_ids": [list(pair.chosen.tokens) for pair in kept],
                "rejected_ids": [list(pair.rejected.tokens) for pair in kept],
            }
        ),
        processing_class=tokenizer,
    )
    # On an NF4 base trl puts all that is trained into bf16, the head too.
    scorer.get_submodule(f"base_model.model.{HEAD}").float()
    return trainer
