"""RLOO and GRPO through trl: the model writes answers, rewards judge them, and the divergence from the stage's start holds it back.

RLOO: Ahmadian et al. 2024, arXiv:2402.14740. GRPO: Shao et al. 2024, arXiv:2402.03300.

A run that resumes from a checkpoint ends with the same weights: every step writes its own answers, no step keeps anything for the next,
and the prompts of each step are drawn before the first.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from services.training.methods import answers, held_out, model
from services.training.methods.answers import Prompt
from services.training.methods.base import Prepared, StageContext, plan_steps, trainer_options
from services.training.methods.rewards import Rewarder, make_rewarder
from services.training.recipe import Recipe
from tailor.errors import InvalidArgument, Reason
from tailor.logging import get_logger

log = get_logger(__name__)

REFERENCE = "ref"  # trl's name for the frozen copy of the adapter, as it was when the trainer was created


def prepare(context: StageContext) -> Prepared:
    """A trainer over the dataset's distinct prompts. Raises InvalidArgument (INVALID_ROW, NO_PROMPTS, NO_REWARD_ADAPTER)."""
    recipe, inputs = context.recipe, context.inputs
    prompts, too_long = _read_train_prompts(context)
    steps = count_steps(prompts, recipe)
    rewarder = make_rewarder(recipe.rewards, inputs.base, inputs.reward, context.tokenizer)
    policy = answers.use_plain_attention(model.trainable_model(inputs.base, recipe, inputs.parent))
    drawn = answers.draw_passes(prompts, steps * recipe.rollout.prompts, recipe.seed)
    trainer = _build_trainer(policy, context, drawn, rewarder)
    measured = _read_held_out_prompts(context)
    return Prepared(
        trainer,
        steps,
        rows=len(prompts),
        left_out=too_long,
        measure=lambda: measure(trainer.model, context, measured, rewarder) if measured else {},
        shown={"reward": "reward", "kl": "kl"},
    )


def count_steps(prompts: Sequence[Prompt], recipe: Recipe) -> int:
    """The number of steps within the recipe's limits on these prompts; at least 1. Tokens are those of prompts and full-length answers."""
    rollout, accumulation = recipe.rollout, recipe.batch.accumulation
    longest = max(len(prompt.tokens) for prompt in prompts) + rollout.max_new_tokens
    passes = -(-len(prompts) // rollout.prompts)
    return plan_steps(passes * accumulation, rollout.prompts * rollout.answers * longest // accumulation, recipe)


def measure(policy: Any, context: StageContext, prompts: Sequence[Prompt], rewarder: Rewarder) -> dict[str, float]:
    """Answers to held-out prompts before and after training, drawn with the same seed.

    Returns their mean rewards, how often the later answer is better (`win_rate`), and the mean divergence of the later answers from the
    stage's start (`kl`, nats per token).
    """
    from trl.trainer.utils import use_adapter

    rollout, seed, tokenizer = context.recipe.rollout, context.recipe.seed, context.tokenizer
    prompt_tokens = [prompt.tokens for prompt in prompts]
    after = answers.write_answers(policy, tokenizer, prompts, rollout, seed)
    with use_adapter(policy, REFERENCE):
        before = answers.write_answers(policy, tokenizer, prompts, rollout, seed)
    earlier, later = rewarder.rewards(prompt_tokens, before), rewarder.rewards(prompt_tokens, after)
    return {
        "reward_before": sum(earlier) / len(earlier),
        "reward_after": sum(later) / len(later),
        "win_rate": win_rate(later, earlier),
        "kl": answers.divergence(policy, tokenizer, prompts, after, REFERENCE),
    }


def win_rate(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Share of prompts on which our reward is higher; a tie counts half."""
    points = [1.0 if our > their else 0.5 if our == their else 0.0 for our, their in zip(ours, theirs, strict=True)]
    return sum(points) / len(points)


def _read_train_prompts(context: StageContext) -> tuple[list[Prompt], int]:
    """The prompts that leave room for an answer, and how many do not."""
    room = context.max_length - context.recipe.rollout.max_new_tokens
    prompts, too_long = answers.read_prompts(context.inputs.train, context.tokenizer, room)
    if not prompts:
        raise InvalidArgument(
            Reason.NO_PROMPTS,
            "No prompt leaves room for an answer. Raise batch.max_length or lower rollout.max_new_tokens.",
        )
    if too_long:
        log.warning("prompts left out: too long", prompts=too_long)
    return prompts, too_long


def _read_held_out_prompts(context: StageContext) -> list[Prompt]:
    room = context.max_length - context.recipe.rollout.max_new_tokens
    prompts, _ = answers.read_prompts(context.inputs.held_out, context.tokenizer, room)
    return held_out.choose([(prompt.row_id, len(prompt.tokens), prompt) for prompt in prompts])


def _build_trainer(policy: Any, context: StageContext, prompts: Sequence[Prompt], rewarder: Rewarder) -> Any:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    recipe, meter, tokenizer = context.recipe, context.meter, context.tokenizer
    tokens_by_row = {prompt.row_id: prompt.tokens for prompt in prompts}
    parent_class, configure = (RLOOTrainer, RLOOConfig) if recipe.method == "rloo" else (GRPOTrainer, GRPOConfig)

    class RolloutTrainer(parent_class):  # type: ignore[misc,valid-type]  # defined here, because importing trl takes seconds
        """trl's trainer, counting tokens."""

        def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **options: Any) -> Any:
            """The loss of one micro-batch."""
            meter.count(int(inputs["prompt_mask"].sum() + inputs["completion_mask"].sum()))
            return super().compute_loss(model, inputs, *args, **options)

    def reward(completion_ids: list[list[int]], row_id: list[str], **_: Any) -> list[float]:
        return rewarder.rewards([tokens_by_row[name] for name in row_id], completion_ids)

    trained = {name: weights.data for name, weights in policy.named_parameters() if weights.requires_grad}
    trainer = RolloutTrainer(
        model=policy,
        reward_funcs=[reward],
        args=configure(**_trainer_arguments(context, len(prompts) // recipe.rollout.prompts)),
        train_dataset=Dataset.from_dict(
            {"prompt": [list(prompt.messages) for prompt in prompts], "row_id": [prompt.row_id for prompt in prompts]}
        ),
        processing_class=tokenizer,
    )
    # On an NF4 base trl casts the matrices to bf16, which loses small updates and changes a parent's weights.
    for name, weights in trained.items():
        policy.get_parameter(name).data = weights
    _ensure_reference(policy)
    return trainer


def _trainer_arguments(context: StageContext, steps: int) -> Mapping[str, Any]:
    recipe = context.recipe
    rollout, accumulation = recipe.rollout, recipe.batch.accumulation
    return {
        **trainer_options(recipe, steps, context.folder, micro_batch=rollout.prompts * rollout.answers // accumulation),
        "num_generations": rollout.answers,
        "steps_per_generation": accumulation,
        "num_iterations": 1,
        "max_completion_length": rollout.max_new_tokens,
        "temperature": rollout.temperature,
        "top_p": rollout.top_p,
        "beta": rollout.beta,
        # The same tokens must be equally likely under the reference, while writing, and while learning.
        "disable_dropout": True,
        # The order is drawn beforehand: a trainer that resumes would shuffle differently.
        "shuffle_dataset": False,
        "log_completions": False,
    }


def _ensure_reference(policy: Any) -> None:
    """Copy the adapter as the reference if trl did not: with beta 0 GRPO keeps none, but the last measurement needs it."""
    if REFERENCE in policy.peft_config:
        return
    policy.add_adapter(REFERENCE, policy.peft_config["default"])
    for name, weights in policy.named_parameters():
        if ".default." in name:
            policy.get_parameter(name.replace(".default.", f".{REFERENCE}.")).data.copy_(weights.data)
