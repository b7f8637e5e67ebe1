"""A reward model through trl: it learns to score the chosen answer higher than the rejected one.

The loss is that of Bradley and Terry on pairs (Ouyang et al. 2022, arXiv:2203.02155, section 3.5).
"""

from collections.abc import Sequence
from typing import Any

from services.training.methods import pairs
from services.training.methods.base import Prepared, StageContext, trainer_options
from services.training.methods.pairs import Pair
from services.training.methods.reward_model import HEAD, choose_padding, score, trainable_scorer
from services.training.recipe import Recipe, check_shape


def prepare(context: StageContext) -> Prepared:
    """A trainer over the dataset's pairs. A parent provides the adapter's initial matrices."""
    recipe, inputs = context.recipe, context.inputs
    if inputs.parent is not None:
        check_shape(recipe, inputs.parent.shape)
    every, skipped = pairs.read(inputs.train, context.tokenizer)
    drawn = draw_pairs(every, recipe)
    train = pairs.keep_fitting(drawn, recipe.batch, context.max_length)
    held_out = pairs.choose_held_out(inputs.held_out, context.tokenizer, context.max_length)
    steps = pairs.count_steps(train, recipe)
    trainer = _build_trainer(trainable_scorer(inputs.base, recipe, inputs.parent), context, train, steps)
    return Prepared(
        trainer,
        steps,
        rows=len(train),
        skipped=skipped + len(drawn) - len(train),
        learned=[pair.chosen for pair in train],
        measure=lambda: {"reward_accuracy": accuracy(trainer.model, held_out)} if held_out else {},
        kind="reward",
        shown={"accuracy": "accuracy", "reward": "mean_reward"},
    )


def draw_pairs(every: Sequence[Pair], recipe: Recipe) -> Sequence[Pair]:
    """The pairs that the recipe learns from: all, or for a held-out reward model those of its share of the prompts."""
    if recipe.held_out_reward is None:
        return every
    drawn = pairs.draw_prompts(map(pairs.prompt_digest, every), recipe.held_out_reward.share, recipe.seed)
    return [pair for pair in every if pairs.prompt_digest(pair) in drawn]


def accuracy(scorer: Any, held_out: Sequence[Pair]) -> float:
    """Share of pairs whose chosen answer gets the higher reward."""
    scorer.eval()
    rewards = [(score(scorer, [pair.chosen.tokens])[0], score(scorer, [pair.rejected.tokens])[0]) for pair in held_out]
    return sum(chosen > rejected for chosen, rejected in rewards) / len(rewards)


def _build_trainer(scorer: Any, context: StageContext, train: Sequence[Pair], steps: int) -> Any:
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    recipe, meter = context.recipe, context.meter

    class CountingTrainer(RewardTrainer):  # type: ignore[misc]  # defined here, because importing trl takes seconds
        """trl's trainer, counting tokens."""

        def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **options: Any) -> Any:
            """The loss of one micro-batch."""
            meter.count(int(inputs["attention_mask"].sum()))
            return super().compute_loss(model, inputs, *args, **options)

    tokenizer = context.tokenizer
    tokenizer.pad_token_id = choose_padding(tokenizer)
    size = pairs.pairs_per_batch(train, recipe.batch)
    trainer = CountingTrainer(
        model=scorer,
        args=RewardConfig(
            **trainer_options(recipe, steps, context.folder, processes=context.processes, micro_batch=size),
            max_length=None,
        ),
        train_dataset=Dataset.from_dict(
            {
                "chosen_ids": [list(pair.chosen.tokens) for pair in train],
                "rejected_ids": [list(pair.rejected.tokens) for pair in train],
            }
        ),
        processing_class=tokenizer,
    )
    # On an NF4 base trl casts everything that is trained to bf16, including the head.
    scorer.get_submodule(f"base_model.model.{HEAD}").float()
    return trainer
