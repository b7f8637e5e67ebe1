"""Learning rates that follow the width of the base and the method, for recipes that name none."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.training.recipe import Recipe

# Rates for all weights at a width, fitted by Thinking Machines on Llama models of 1B to 70B ("LoRA Without Regret", 2025, and the
# tinker-cookbook). LoRA with alpha = 32 and the scale alpha / r takes ten times that at every rank.
FULL_RATE = 5e-5
WIDTH = 2000
EXPONENT = 0.781
LORA_TIMES = 10.0
ALPHA = 32
# Of the rate of SFT. Rankings only change the order of answers that are likely already, and a rate as high as that of SFT drifts; these
# are what was stable for SmolLM2-135M (docs/benchmarks.md).
SHARES = {"sft": 1.0, "sweep": 1.0, "dpo": 0.15, "reward": 0.38, "rloo": 0.23, "grpo": 0.23}


def choose_rate(recipe: "Recipe", width: int) -> float:
    """The recipe's learning rate, or the derived one for a base with hidden states of this width."""
    if recipe.optimizer.learning_rate:
        return recipe.optimizer.learning_rate
    rate = SHARES[recipe.method] * FULL_RATE * (WIDTH / width) ** EXPONENT
    adapter = recipe.adapter
    if adapter.kind == "none":
        return rate
    # A larger scale moves the weights further at the same rate.
    scale = adapter.alpha / (math.sqrt(adapter.r) if adapter.use_rslora else adapter.r)
    return rate * LORA_TIMES * ALPHA / adapter.r / scale
