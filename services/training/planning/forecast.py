"""What a stage takes: memory and time by the rules of docs/decisions/0014-the-forecast.md. Standard library and recipes only.

Bytes and operations are counted from the base's shape; the constants that no shape gives were measured with the real worker.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from services.training.recipe import GENERATING, Recipe

# Interpreter, torch, transformers, trl and the rows: what a worker holds before it loads a base (MB of a CPU process), and on a GPU.
CPU_FIXED = 750 * 10**6
GPU_FIXED = 64 * 10**6
# What the driver's context takes beside the allocator's memory, and the share that fragments.
GPU_RESERVE = 10**9
FRAGMENTS = 1.1
# NF4 with double quantisation: half a byte, and a scale of a byte for each 64 weights.
NF4_BYTES = 0.516
ADAM_BYTES = 16  # f32 weight, gradient and two moments
# What backward keeps of a layer, in values of the computing precision per token: of the width (norms, attention, inputs; on NF4 what stands
# around the quantised modules is in f32), of the keys and values, and of the inner width.
KEPT_WIDTH, KEPT_WIDTH_NF4, KEPT_KEYS, KEPT_INNER = 12.0, 24.0, 4.0, 4.0
# Of a learned token's scores over the vocabulary: as computed, in f32, and their gradients.
SCORE_BYTES = 12.0
# A token that is written one by one reads all weights for a few tokens, instead of for a whole batch of them.
WRITING_COST = 8.0
# Training reaches this share of what a large matrix product does.
EFFICIENCY_CPU, EFFICIENCY_GPU = 0.6, 0.35
START_SECONDS, PROOF_SECONDS = 12.0, 15.0
LOAD_BYTES_PER_SECOND = 200e6


@dataclass(frozen=True)
class Shape:
    """A base's size. `linear` is the parameters of the layers' linear modules, `targets` the name, inputs and outputs of each of them;
    `largest` the parameters of the largest tensor."""

    parameters: int
    linear: int
    largest: int
    layers: int
    width: int
    inner: int
    key_width: int
    vocabulary: int
    context: int
    targets: tuple[tuple[str, int, int], ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Load:
    """What a stage does. `tokens` and `learned` are those of its largest micro-batch, `trained` those of all its steps, `written`
    those among them that it writes itself, and `cached` stand in the cache while it does."""

    rows: int
    steps: int
    tokens: int
    learned: int
    trained: int
    written: int = 0
    cached: int = 0


def adapted(recipe: Recipe, shape: Shape) -> list[tuple[str, int, int]]:
    """The linear modules that the recipe's adapter changes."""
    wanted = recipe.adapter.target_modules
    if recipe.adapter.kind == "none":
        return []
    if isinstance(wanted, str):
        return list(shape.targets)
    return [module for module in shape.targets if module[0] in wanted]


def adapter_parameters(recipe: Recipe, shape: Shape) -> int:
    """The parameters of the recipe's adapter; 0 where all weights are trained."""
    extra = 1 if recipe.adapter.use_dora else 0
    return sum(recipe.adapter.r * (inputs + outputs) + extra * outputs for _, inputs, outputs in adapted(recipe, shape))


def weight_bytes(recipe: Recipe, shape: Shape) -> float:
    """The base as it lies in memory while it is trained on."""
    if recipe.adapter.kind == "qlora":
        # What is not quantised is kept in f32 beside it.
        return NF4_BYTES * shape.linear + 4 * (shape.parameters - shape.linear)
    return (2 if recipe.precision == "bf16" else 4) * shape.parameters


def judge_bytes(recipe: Recipe, shape: Shape) -> float:
    """The base once more, under the reward adapter that answers are scored with."""
    return weight_bytes(recipe, shape) if any(rule.kind == "model" for rule in recipe.rewards) else 0.0


def trained_bytes(recipe: Recipe, shape: Shape) -> float:
    """Gradients and moments, the adapter's own weights, and what a step needs beside them."""
    if recipe.adapter.kind != "none":
        copies = 2 if recipe.precision != "f32" else 0
        return (ADAM_BYTES + copies) * adapter_parameters(recipe, shape)
    cast = 2 * shape.linear if recipe.precision == "mixed" else 0
    return (ADAM_BYTES - 4) * shape.parameters + 8 * shape.largest + cast


def activation_bytes(recipe: Recipe, shape: Shape, load: Load) -> float:
    """What the largest micro-batch keeps between forward and backward."""
    value = 4 if recipe.precision == "f32" else 2
    width = KEPT_WIDTH_NF4 if recipe.adapter.kind == "qlora" and value == 2 else KEPT_WIDTH
    layer = value * (width * shape.width + KEPT_KEYS * shape.key_width + KEPT_INNER * shape.inner)
    kept = layer * shape.layers
    if recipe.adapter.dropout:
        # A copy of each module's input, and a mask of a byte.
        copy = 4 if recipe.adapter.kind == "qlora" else value
        kept += (copy + 1) * sum(inputs for _, inputs, _ in adapted(recipe, shape))
    return kept * load.tokens + SCORE_BYTES * shape.vocabulary * load.learned


def writing_bytes(recipe: Recipe, shape: Shape, load: Load) -> float:
    """The keys and values of answers that are being written, and the scores of their next tokens."""
    if recipe.method not in GENERATING:
        return 0.0
    value = 4 if recipe.precision == "f32" else 2
    answers = recipe.rollout.prompts * recipe.rollout.answers
    return load.cached * shape.layers * 2 * shape.key_width * value + answers * shape.vocabulary * SCORE_BYTES


def memory(recipe: Recipe, shape: Shape, load: Load, *, gpu: bool) -> int:
    """The most memory at once: of the GPU's allocator, or of the process. Training and writing take turns; what a stage that learns from
    rankings starts from is the same base with its adapter switched off."""
    held = weight_bytes(recipe, shape) + judge_bytes(recipe, shape) + trained_bytes(recipe, shape)
    peak = max(activation_bytes(recipe, shape, load), writing_bytes(recipe, shape, load))
    return round((GPU_FIXED if gpu else CPU_FIXED) + held + peak)


def needed(recipe: Recipe, shape: Shape, load: Load, *, gpu: bool) -> int:
    """What the device must have: on a GPU more than the allocator's, on a CPU the proof's second process beside the first."""
    used = memory(recipe, shape, load, gpu=gpu)
    if gpu:
        return round(used * FRAGMENTS + GPU_RESERVE)
    at_rest = CPU_FIXED + weight_bytes(recipe, shape) + trained_bytes(recipe, shape)
    return round(max(used, at_rest + CPU_FIXED + weight_bytes(recipe, shape)))


def operations(recipe: Recipe, shape: Shape, load: Load) -> float:
    """Floating-point operations of a stage: 2 a weight and token forward, 2 for the gradients of the inputs, 2 for those of the weights."""
    small = adapter_parameters(recipe, shape)
    a_token = 6 * shape.linear if recipe.adapter.kind == "none" else 4 * shape.linear + 6 * small
    if recipe.method in ("dpo", *GENERATING):
        # The model that it started from reads the same tokens.
        a_token += 2 * shape.linear
    share = load.learned / load.tokens if load.tokens else 0.0
    scores = 6 * shape.vocabulary * shape.width * share
    written = WRITING_COST * 2 * (shape.linear + shape.vocabulary * shape.width)
    return (a_token + scores) * load.trained + written * load.written


def working_seconds(recipe: Recipe, shape: Shape, load: Load, teraflops: float, *, gpu: bool) -> float:
    """The time of all steps, on a device that does so many 10^12 operations a second in a large matrix product."""
    share = EFFICIENCY_GPU if gpu else EFFICIENCY_CPU
    return operations(recipe, shape, load) / (teraflops * 1e12 * share)


def other_seconds(shape: Shape) -> float:
    """The time around the steps: starting, loading the base twice, and the proof."""
    return START_SECONDS + PROOF_SECONDS + 2 * 2 * shape.parameters / LOAD_BYTES_PER_SECOND


def nearest(recipe: Recipe, fitting: Iterable[tuple[str, Recipe]]) -> str:
    """Of the recipes that fit, the one nearest to this: the same kind of adapter, else lora before qlora; then the most tokens a step."""
    kinds = (recipe.adapter.kind, "lora", "qlora", "none")
    ranked = sorted(fitting, key=lambda named: (kinds.index(named[1].adapter.kind), -named[1].batch.tokens, named[0]))
    return ranked[0][0] if ranked else ""
