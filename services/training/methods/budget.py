"""Checks the steps of RLOO and GRPO against the recipe's budget: the divergence from the start, and the length of the answers.

All figures are those of the trainer's log. A checkpoint contains the log, so a run that resumes ends at the same step.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.training.recipe import Recipe
from services.training.recipe_parts import LENGTH_STEPS
from tailor.errors import InvalidArgument, Reason

# trl's names of a step's figures: nats per answer token, tokens per answer, and the share of answers that were cut off.
KL, LENGTH, TRUNCATED = "kl", "completions/mean_length", "completions/clipped_ratio"

Log = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class BudgetCheck:
    """The result for the weights that wrote a step's answers.

    `measured` is False if they say nothing, because all were cut off. `exceeded` and `warning` are sentences; empty if there is none.
    """

    measured: bool = True
    exceeded: str = ""
    warning: str = ""


# Takes the trainer's log up to and including the step to check.
Watch = Callable[[Log], BudgetCheck]


def watch_budget(recipe: Recipe) -> Watch:
    """The check of a recipe. Raises InvalidArgument (NO_COMPLETE_ANSWER) if each answer of the first steps was cut off and is masked."""
    return lambda log: _check([entry for entry in log if LENGTH in entry], recipe)


def _check(steps: Log, recipe: Recipe) -> BudgetCheck:
    budget, masked = recipe.budget, recipe.rollout.mask_truncated
    complete = [step for step in steps if not (masked and step[TRUNCATED] >= 1.0)]
    if not complete and len(steps) >= LENGTH_STEPS:
        raise InvalidArgument(
            Reason.NO_COMPLETE_ANSWER,
            f"Each answer of the first {len(steps)} steps was cut off after {recipe.rollout.max_new_tokens} tokens, so nothing can be "
            "learned. Raise rollout.max_new_tokens, or set rollout.mask_truncated = false to learn from cut answers.",
        )
    if not complete or complete[-1] is not steps[-1]:
        return BudgetCheck(measured=False)
    divergence = float(steps[-1].get(KL, 0.0))
    # `not <=` rather than `>`, so that NaN fails too.
    if budget.max_kl and not divergence <= budget.max_kl:
        return BudgetCheck(
            exceeded=f"The divergence from the start was {divergence:.3f} nats per token, above budget.max_kl = {budget.max_kl:g}."
        )
    drift = _describe_drift(complete, budget.max_length_ratio)
    return BudgetCheck(exceeded=drift) if budget.on_length == "stop" else BudgetCheck(warning=drift)


def _describe_drift(steps: Log, limit: float) -> str:
    """A sentence if the answers have become longer or shorter than admitted, else empty."""
    if not limit or len(steps) < 2 * LENGTH_STEPS:
        return ""
    first, last = _mean_length(steps[:LENGTH_STEPS]), _mean_length(steps[-LENGTH_STEPS:])
    if first / limit <= last <= first * limit:
        return ""
    return f"The mean answer went from {first:.1f} to {last:.1f} tokens, beyond budget.max_length_ratio = {limit:g}."


def _mean_length(steps: Log) -> float:
    return sum(float(step[LENGTH]) for step in steps) / len(steps)
