"""RLOO and GRPO through trl: the model writes answers, rewards judge them, and the divergence from the stage's start holds it back.

RLOO: Ahmadian et al. 2024, arXiv:2402.14740. GRPO: Shao et al. 2024, arXiv:2402.03300.

A run that resumes from a checkpoint ends with the same weights: every step writes its own answers, no step keeps anything for the next,
and the prompts of each step are drawn before the first. The engine that serves writes the answers if it can (`engine.py`), else trl does
with `generate`. An engine draws by a seed of the step, `generate` from the generator that a checkpoint contains.

If the specialist lets its base think, answers begin with a thought: it is learned like the rest, and rewards see the answer after it.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from services.training.bases.capabilities import read_capabilities
from services.training.methods import answers, engine, held_out, model
from services.training.methods.answers import Prompt
from services.training.methods.base import Prepared, StageContext, plan_steps, trainer_options
from services.training.methods.budget import KL, LENGTH, TRUNCATED, watch_budget
from services.training.methods.rewards import Judges, Rewarder, agreement, make_judges
from services.training.ports import RolloutEngine
from services.training.recipe import Recipe
from tailor.chat import encode_prompt
from tailor.errors import InvalidArgument, Reason
from tailor.logging import get_logger
from tailor.thoughts import ThoughtMarkers, find_markers

log = get_logger(__name__)

REFERENCE = "ref"  # trl's name for the frozen copy of the adapter, as it was when the trainer was created
UNANSWERED = "unanswered_share"
ROLLOUTS = "rollouts"  # the folder in a worker's own with the adapter for the engine
# Figures of a progress report, by their names in the trainer's log. Those of the held-out reward model are absent without one, and that of
# answers without an end of their thought if the base does not think.
SHOWN = {
    "reward": "reward",
    "kl": KL,
    "answer_tokens": LENGTH,
    "truncated_share": TRUNCATED,
    "unanswered_share": UNANSWERED,
    "held_out_reward": "held_out_reward",
    "held_out_agreement": "held_out_agreement",
}


def prepare(context: StageContext) -> Prepared:
    """A trainer over the dataset's distinct prompts. Raises InvalidArgument (INVALID_ROW, NO_PROMPTS, NO_REWARD_ADAPTER)."""
    recipe, inputs = context.recipe, context.inputs
    prompts, too_long = _read_train_prompts(context)
    steps = count_steps(prompts, recipe)
    judges = make_judges(
        recipe.rewards,
        inputs.base,
        context.tokenizer,
        reward=inputs.reward,
        held_out_reward=inputs.held_out_reward,
        thought=_find_thought(context),
    )
    policy = answers.use_plain_attention(model.trainable_model(inputs.base, recipe, inputs.parent), inputs.base)
    drawn = answers.draw_passes(prompts, steps * recipe.rollout.prompts, recipe.seed)
    trainer = _build_trainer(policy, context, drawn, judges)
    measured = _read_held_out_prompts(context)
    # Last, because from here on it must be closed.
    writer = _start_engine(policy, context, drawn)
    trainer.use_engine(writer)
    return Prepared(
        trainer,
        steps,
        rows=len(prompts),
        skipped=too_long,
        measure=lambda: measure(trainer.model, context, measured, judges) if measured else {},
        shown=SHOWN,
        watch=watch_budget(recipe),
        release=writer.close if writer else lambda: None,
        extra_bytes=(lambda: writer.peak_bytes) if writer else lambda: 0,
    )


def count_steps(prompts: Sequence[Prompt], recipe: Recipe) -> int:
    """The number of steps within the recipe's limits on these prompts; at least 1. Tokens are those of prompts and full-length answers."""
    rollout, accumulation = recipe.rollout, recipe.batch.accumulation
    longest = max(len(prompt.tokens) for prompt in prompts) + rollout.max_new_tokens
    passes = -(-len(prompts) // rollout.prompts)
    return plan_steps(passes * accumulation, rollout.prompts * rollout.answers * longest // accumulation, recipe)


def measure(policy: Any, context: StageContext, prompts: Sequence[Prompt], judges: Judges) -> dict[str, float]:
    """Answers to held-out prompts before and after training, drawn with the same seed.

    Returns their mean rewards, how often the later answer is better (`win_rate`), the mean divergence of the later answers from the
    stage's start (`kl`, nats per token), how many times longer they are (`length_ratio`), and the share that was cut (`truncated_share`);
    if they begin with a thought, also the share in which nothing follows it (`unanswered_share`).
    With a held-out reward model also its `held_out_reward_before`, `_after` and `held_out_win_rate`, and `held_out_gap`, by which the win
    rate is higher.
    """
    from trl.trainer.utils import use_adapter

    rollout, seed, tokenizer = context.recipe.rollout, context.recipe.seed, context.tokenizer
    after = answers.write_answers(policy, tokenizer, prompts, rollout, seed)
    with use_adapter(policy, REFERENCE):
        before = answers.write_answers(policy, tokenizer, prompts, rollout, seed)
    ends = answers.end_tokens(policy, tokenizer)
    figures = _compare(judges.rewarder, prompts, before, after) | {
        "kl": answers.divergence(policy, tokenizer, prompts, after, REFERENCE),
        "length_ratio": sum(map(len, after)) / sum(map(len, before)),
        "truncated_share": sum(answer[-1] not in ends for answer in after) / len(after),
        **_count_unanswered(judges, after),
    }
    if judges.held_out_reward is None:
        return figures
    second = _compare(judges.held_out_reward, prompts, before, after)
    gap = figures["win_rate"] - second["win_rate"]
    return figures | {f"held_out_{name}": value for name, value in second.items()} | {"held_out_gap": gap}


def _compare(
    rewarder: Rewarder, prompts: Sequence[Prompt], before: Sequence[list[int]], after: Sequence[list[int]]
) -> dict[str, float]:
    # Together, so that no answer at all is never better than one.
    rewards = rewarder.rewards([*prompts, *prompts], [*before, *after])
    earlier, later = rewards[: len(before)], rewards[len(before) :]
    return {
        "reward_before": sum(earlier) / len(earlier),
        "reward_after": sum(later) / len(later),
        "win_rate": win_rate(later, earlier),
    }


def _count_unanswered(judges: Judges, answers: Sequence[Sequence[int]]) -> dict[str, float]:
    """The share of answers with a thought and nothing after it; empty if the base does not think."""
    if not judges.thinking:
        return {}
    return {UNANSWERED: judges.rewarder.read(answers).count(None) / len(answers)}


def win_rate(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Share of prompts on which our reward is higher; a tie counts half."""
    points = [1.0 if our > their else 0.5 if our == their else 0.0 for our, their in zip(ours, theirs, strict=True)]
    return sum(points) / len(points)


def _read_train_prompts(context: StageContext) -> tuple[list[Prompt], int]:
    """The prompts that leave room for an answer, and how many do not."""
    prompts, too_long = _read_prompts(context, context.inputs.train)
    if not prompts:
        raise InvalidArgument(
            Reason.NO_PROMPTS,
            "No prompt leaves room for an answer. Raise batch.max_length or lower rollout.max_new_tokens.",
        )
    if too_long:
        log.warning("prompts left out: too long", prompts=too_long)
    return prompts, too_long


def _read_held_out_prompts(context: StageContext) -> list[Prompt]:
    prompts, _ = _read_prompts(context, context.inputs.held_out)
    return held_out.choose([(prompt.row_id, len(prompt.tokens), prompt) for prompt in prompts])


def _read_prompts(context: StageContext, files: Sequence[Path]) -> tuple[list[Prompt], int]:
    room = context.max_length - context.recipe.rollout.max_new_tokens
    return answers.read_prompts(files, context.tokenizer, room, thinking=_find_thought(context) is not None)


def _find_thought(context: StageContext) -> ThoughtMarkers | None:
    """The markers of the thoughts with which answers begin; None if the specialist or its base does not think."""
    chat = read_capabilities(context.inputs.base).chat
    is_on = context.recipe.rollout.thinking
    return find_markers(context.tokenizer, chat.thought_start, chat.thought_end) if is_on else None


def _start_engine(policy: Any, context: StageContext, prompts: Sequence[Prompt]) -> RolloutEngine | None:
    """The engine that writes the answers to these prompts; None if `generate` does."""
    import torch

    recipe, base = context.recipe, context.inputs.base
    reason = engine.reason_against(recipe, base, gpu=torch.cuda.is_available())
    started = None
    if not reason:
        folder = context.folder / ROLLOUTS
        engine.save_adapter(policy, folder)
        started = context.start_engine(
            engine.options_of(recipe, base, policy, context.tokenizer, prompts, adapter=folder)
        )
    log.info("rollouts", engine="vllm" if started else "generate", reason=reason)
    return started


def _build_trainer(policy: Any, context: StageContext, prompts: Sequence[Prompt], judges: Judges) -> Any:
    import torch
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    recipe, meter, tokenizer = context.recipe, context.meter, context.tokenizer
    parent_class, configure = (RLOOTrainer, RLOOConfig) if recipe.method == "rloo" else (GRPOTrainer, GRPOConfig)
    # The engine's probabilities are those of the nucleus, which the training model's are not.
    weighted = recipe.rollout.top_p == 1.0

    class RolloutTrainer(parent_class):  # type: ignore[misc,valid-type]  # defined here, because importing trl takes seconds
        """trl's trainer, counting tokens. The engine writes the answers if there is one."""

        writer: RolloutEngine | None = None
        drawn_with: Any = None  # (answers,): the engine's log-probability of each answer of the newest step

        def use_engine(self, writer: RolloutEngine | None) -> None:
            """Let the engine write the answers. For trl it is one more vLLM, whose kernels GRPO's loss corrects for."""
            self.writer = writer
            self.use_vllm = writer is not None

        def _tokenize_prompts(self, prompts: list[list[dict[str, str]]]) -> Any:
            """Prompts as token ids, as they were read; trl knows neither broken up control tokens nor thoughts."""
            return [encode_prompt(prompt, tokenizer, thinking=judges.thinking) for prompt in prompts], None, {}

        def _generate_single_turn(self, prompt_ids: list[list[int]], *arguments: Any) -> Any:
            """Answers as token ids; for GRPO also the log-probabilities of their tokens."""
            if self.writer is None:
                return super()._generate_single_turn(prompt_ids, *arguments)
            folder = context.folder / ROLLOUTS
            engine.save_adapter(self.accelerator.unwrap_model(self.model), folder)
            written = self.writer.write(prompt_ids, folder, step_seed(recipe, self.state.global_step))
            self.drawn_with = torch.tensor([sum(answer.log_probabilities) for answer in written])
            tokens = [list(answer.tokens) for answer in written]
            if recipe.method == "rloo":
                return tokens
            return tokens, [list(answer.log_probabilities) for answer in written]

        def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
            """trl corrects for the engine's kernels in GRPO only; in RLOO an answer's advantage is weighted."""
            output: dict[str, Any] = super()._generate_and_score_completions(inputs)
            if self.writer is not None and recipe.method == "rloo" and weighted:
                weights = engine.weigh(output["old_logps"], self.drawn_with, output["completion_mask"])
                output["advantages"] = output["advantages"] * weights
                self._metrics["train"]["sampling/importance_sampling_ratio/mean"].append(float(weights.mean()))
            return output

        def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **options: Any) -> Any:
            """The loss of one micro-batch."""
            meter.count(int(inputs["prompt_mask"].sum() + inputs["completion_mask"].sum()))
            return super().compute_loss(model, inputs, *args, **options)

    trained = {name: weights.data for name, weights in policy.named_parameters() if weights.requires_grad}
    trainer = RolloutTrainer(
        model=policy,
        reward_funcs=[_reward_function(judges, prompts, recipe.rollout.answers)],
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


def _reward_function(judges: Judges, prompts: Sequence[Prompt], per_prompt: int) -> Callable[..., list[float]]:
    """What trl calls with the answers of a step. Logs the held-out reward model's figures."""
    by_row = {prompt.row_id: prompt for prompt in prompts}

    def reward(
        completion_ids: list[list[int]], row_id: list[str], log_metric: Callable[[str, float], None], **_: Any
    ) -> list[float]:
        asked = [by_row[name] for name in row_id]
        rewards = judges.rewarder.rewards(asked, completion_ids)
        for name, share in _count_unanswered(judges, completion_ids).items():
            log_metric(name, share)
        if judges.held_out_reward is not None:
            second = judges.held_out_reward.rewards(asked, completion_ids)
            log_metric("held_out_reward", sum(second) / len(second))
            alike = agreement(rewards, second, per_prompt)
            if alike is not None:
                log_metric("held_out_agreement", alike)
        return rewards

    return reward


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
        "mask_truncated_completions": rollout.mask_truncated,
        # The same tokens must be equally likely under the reference, while writing, and while learning.
        "disable_dropout": True,
        # The order is drawn beforehand: a trainer that resumes would shuffle differently.
        "shuffle_dataset": False,
        "log_completions": False,
        **_correction(recipe),
    }


def _correction(recipe: Recipe) -> Mapping[str, Any]:
    """GRPO's correction for an engine's kernels, in trl's terms; RLOO's is our own."""
    if recipe.method == "rloo":
        return {}
    return {
        "vllm_importance_sampling_correction": recipe.rollout.top_p == 1.0,
        "vllm_importance_sampling_mode": "sequence_truncate",
        "vllm_importance_sampling_clip_max": engine.MAX_WEIGHT,
    }


def step_seed(recipe: Recipe, step: int) -> int:
    """The seed of a step's first answer. Each further answer takes the next number, and no two answers of a run the same."""
    return (recipe.seed << 30) + step * recipe.rollout.prompts * recipe.rollout.answers


def _ensure_reference(policy: Any) -> None:
    """Copy the adapter as the reference if trl did not: with beta 0 GRPO keeps none, but the last measurement needs it."""
    if REFERENCE in policy.peft_config:
        return
    policy.add_adapter(REFERENCE, policy.peft_config["default"])
    for name, weights in policy.named_parameters():
        if ".default." in name:
            policy.get_parameter(name.replace(".default.", f".{REFERENCE}.")).data.copy_(weights.data)
