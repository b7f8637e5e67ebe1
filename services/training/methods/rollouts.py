"""RLOO and GRPO through trl: the model writes answers, a reward judges them, and what stage or base it started from holds it back.

A checkpoint is a clean cut: every step writes its own answers, nothing is kept from one step for the next, and the prompts of step N are
known before the first. So a run that goes on from a checkpoint ends with the same weights.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from services.training.methods import answers, held_out, model
from services.training.methods.answers import Prompt
from services.training.methods.base import Context, Plan, Prepared, plan_steps, trainer_options
from services.training.methods.rewards import Rewarder, make_rewarder
from services.training.recipe import Recipe
from tailor.errors import InvalidArgument, Reason
from tailor.logging import get_logger

log = get_logger(__name__)

REFERENCE = "ref"  # trl's name of the frozen copy of the adapter, as it was when the trainer was made


def prepare(context: Context) -> Prepared:
    """A trainer over the dataset's distinct prompts. InvalidArgument (INVALID_ROW, NO_PROMPTS, NO_REWARD_ADAPTER)."""
    recipe, found = context.recipe, context.found
    prompts = _trainable(context)
    steps = plan(prompts, recipe).steps
    rewarder = make_rewarder(recipe.rewards, found.base, found.reward, context.tokenizer)
    policy = answers.without_packing(model.trainable_model(found.base, recipe, found.parent))
    trainer = _build(policy, context, answers.in_passes(prompts, steps * recipe.rollout.prompts, recipe.seed), rewarder)
    kept = _held_out(context)
    return Prepared(
        trainer,
        steps,
        rows=len(prompts),
        measure=lambda: measure(trainer.model, context, kept, rewarder) if kept else {},
        shown={"reward": "reward", "kl": "kl"},
    )


def plan(prompts: Sequence[Prompt], recipe: Recipe) -> Plan:
    """The steps that the recipe's limits allow on these prompts; at least one. Tokens are those of prompts and whole answers."""
    rollout, accumulation = recipe.rollout, recipe.batch.accumulation
    longest = max(len(prompt.tokens) for prompt in prompts) + rollout.max_new_tokens
    passes = -(-len(prompts) // rollout.prompts)
    return plan_steps(passes * accumulation, rollout.prompts * rollout.answers * longest // accumulation, recipe)


def measure(policy: Any, context: Context, prompts: Sequence[Prompt], rewarder: Rewarder) -> dict[str, float]:
    """Rewards of answers to held-out prompts before and after, drawn with the same seed; how often the later one is better (a tie counts
    half); and the divergence of the later answers from where the stage started."""
    from trl.trainer.utils import use_adapter

    rollout, seed, tokenizer = context.recipe.rollout, context.recipe.seed, context.tokenizer
    asked = [prompt.tokens for prompt in prompts]
    after = answers.sample(policy, tokenizer, prompts, rollout, seed)
    with use_adapter(policy, REFERENCE):
        before = answers.sample(policy, tokenizer, prompts, rollout, seed)
    earlier, later = rewarder.rewards(asked, before), rewarder.rewards(asked, after)
    return {
        "reward_before": sum(earlier) / len(earlier),
        "reward_after": sum(later) / len(later),
        "win_rate": win_rate(later, earlier),
        "kl": answers.divergence(policy, tokenizer, prompts, after, REFERENCE),
    }


def win_rate(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The share of prompts on which our reward is higher; a tie counts half."""
    points = [1.0 if one > other else 0.5 if one == other else 0.0 for one, other in zip(ours, theirs, strict=True)]
    return sum(points) / len(points)


def _trainable(context: Context) -> list[Prompt]:
    recipe = context.recipe
    room = recipe.batch.max_length - recipe.rollout.max_new_tokens
    prompts, longer = answers.read_prompts(context.found.train, context.tokenizer, room)
    if not prompts:
        raise InvalidArgument(
            Reason.NO_PROMPTS,
            "No prompt leaves room for an answer; raise batch.max_length or lower rollout.max_new_tokens.",
        )
    if longer:
        log.warning("prompts left out because they are too long", prompts=longer)
    return prompts


def _held_out(context: Context) -> list[Prompt]:
    if context.found.held_out is None:
        return []
    room = context.recipe.batch.max_length - context.recipe.rollout.max_new_tokens
    prompts, _ = answers.read_prompts(context.found.held_out, context.tokenizer, room)
    return held_out.choose([(prompt.row_id, len(prompt.tokens), prompt) for prompt in prompts])


def _build(policy: Any, context: Context, prompts: Sequence[Prompt], rewarder: Rewarder) -> Any:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    recipe, meter, tokenizer = context.recipe, context.meter, context.tokenizer
    known = {prompt.row_id: prompt.tokens for prompt in prompts}
    parent_class, configure = (RLOOTrainer, RLOOConfig) if recipe.method == "rloo" else (GRPOTrainer, GRPOConfig)

    class RolloutTrainer(parent_class):  # type: ignore[misc,valid-type]  # a class for each run, because importing trl takes seconds
        """trl's trainer, counting tokens."""

        def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **options: Any) -> Any:
            """The loss of one micro-batch."""
            meter.count(int(inputs["prompt_mask"].sum() + inputs["completion_mask"].sum()))
            return super().compute_loss(model, inputs, *args, **options)

    def reward(completion_ids: list[list[int]], row_id: list[str], **_: Any) -> list[float]:
        return rewarder.rewards([known[name] for name in row_id], completion_ids)

    trained = {name: weights.data for name, weights in policy.named_parameters() if weights.requires_grad}
    trainer = RolloutTrainer(
        model=policy,
        reward_funcs=[reward],
        args=configure(**_options(context, len(prompts) // recipe.rollout.prompts)),
        train_dataset=Dataset.from_dict(
            {"prompt": [list(prompt.messages) for prompt in prompts], "row_id": [prompt.row_id for prompt in prompts]}
        ),
        processing_class=tokenizer,
    )
    # On an NF4 base trl takes the matrices to bf16, in which small updates vanish and a parent is no longer itself.
    for name, weights in trained.items():
        policy.get_parameter(name).data = weights
    _keep_reference(policy)
    return trainer


def _options(context: Context, steps: int) -> Mapping[str, Any]:
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
        # Against a reference, and between writing and learning, the same words have to be as likely.
        "disable_dropout": True,
        # The order is ours: a trainer that goes on later would shuffle anew.
        "shuffle_dataset": False,
        "log_completions": False,
    }


def _keep_reference(policy: Any) -> None:
    """Without a divergence to weigh, GRPO keeps no copy of where it started, which the last measurement needs."""
    if REFERENCE in policy.peft_config:
        return
    policy.add_adapter(REFERENCE, policy.peft_config["default"])
    for name, weights in policy.named_parameters():
        if ".default." in name:
            policy.get_parameter(name.replace(".default.", f".{REFERENCE}.")).data.copy_(weights.data)
