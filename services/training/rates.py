"""Learning rates that follow the base and the method, and sizes of steps that follow the device, for recipes that name none."""

import math

from services.training.recipe import Recipe

# Rates for all weights at a width, fitted by Thinking Machines on models of 1B to 70B ("LoRA Without Regret", 2025, and the
# tinker-cookbook). LoRA with alpha = 32 and the scale alpha / r takes ten times that at every rank.
FULL_RATE = 5e-5
WIDTH = 2000
# By family, a part of transformers' `model_type`. Others were not fitted and take Llama's, which is the more careful one for wide bases.
EXPONENTS = {"llama": 0.781, "qwen": 0.0775}
LORA_TIMES = 10.0
ALPHA = 32
# Of the rate of SFT. Rankings only change the order of answers that are likely already, and a rate as high as that of SFT drifts; these
# are what was stable for SmolLM2-135M (docs/benchmarks.md).
SHARES = {"sft": 1.0, "sweep": 1.0, "dpo": 0.15, "reward": 0.38, "rloo": 0.23, "grpo": 0.23}


def choose_rate(recipe: Recipe, width: int, family: str = "") -> float:
    """The recipe's learning rate, or the derived one for a base of a family with hidden states of this width."""
    if recipe.optimizer.learning_rate:
        return recipe.optimizer.learning_rate
    exponent: float = next((found for name, found in EXPONENTS.items() if name in family), EXPONENTS["llama"])
    rate: float = SHARES[recipe.method] * FULL_RATE * (WIDTH / width) ** exponent
    adapter = recipe.adapter
    if adapter.kind == "none":
        return rate
    # A larger scale moves the weights further at the same rate.
    scale = adapter.alpha / (math.sqrt(adapter.r) if adapter.use_rslora else adapter.r)
    return rate * LORA_TIMES * ALPHA / adapter.r / scale


# Tokens of a step: on a CPU few, because more make it no quicker; a GPU needs some ten thousand to be busy.
CPU_TOKENS, CPU_LORA_TOKENS, GPU_TOKENS = 1024, 512, 16_384
# The fewest tokens of a micro-batch on a GPU, and the fewest steps of a run for which steps are made smaller.
MIN_TOKENS, MIN_STEPS = 1024, 100


def step_tokens(recipe: Recipe, *, gpu: bool, trained_tokens: int = 0) -> int:
    """The tokens of a step on a device. Rollouts have steps of their own."""
    if not gpu or recipe.rewards:
        return CPU_LORA_TOKENS if recipe.method in ("sft", "sweep") and recipe.adapter.kind == "lora" else CPU_TOKENS
    tokens = GPU_TOKENS
    while trained_tokens and tokens > MIN_TOKENS and trained_tokens < MIN_STEPS * tokens:
        tokens //= 2
    return tokens


def fit_base(recipe: Recipe, width: int, family: str) -> Recipe:
    """The recipe for a base of a family with hidden states of this width: with a learning rate."""
    return recipe.with_rate(choose_rate(recipe, width, family))


def fit_device(recipe: Recipe, *, gpu: bool) -> Recipe:
    """The recipe for a device for which nothing was planned: with a size of its steps."""
    return list_steps(recipe, gpu=gpu)[0]


def list_steps(recipe: Recipe, *, gpu: bool, trained_tokens: int = 0) -> list[Recipe]:
    """The recipe with each way to compute its steps on a device: the quickest first, the one with the least memory last.

    With `trained_tokens`, the tokens of a run, fewer than MIN_STEPS steps are avoided.
    """
    batch = recipe.batch
    sizes = [(batch.tokens, batch.accumulation)]
    if not batch.tokens:
        tokens = step_tokens(recipe, gpu=gpu, trained_tokens=trained_tokens)
        tokens = min(tokens, (recipe.limit.max_tokens or tokens * batch.accumulation) // batch.accumulation)
        parts = [2**power for power in range(max(1, (tokens // MIN_TOKENS).bit_length()))]
        sizes = [(max(tokens // part, batch.max_length), batch.accumulation * part) for part in parts]
    ways = ("off", "on") if batch.gradient_checkpointing == "auto" else (batch.gradient_checkpointing,)
    return [
        recipe.with_steps(tokens, accumulation, checkpointing=way == "on")
        for way in ways
        for tokens, accumulation in sizes
    ]
