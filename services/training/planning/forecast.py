"""Memory and time of a stage, by the rules of docs/decisions/0014-the-forecast.md. Imports only the standard library and recipes.

Bytes and operations follow from the base's shape. The constants that no shape gives were measured with the real worker.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from services.training.recipe import GENERATING, MEASURING_SHARE, Recipe
from tailor.layer_paths import has_end

# Bytes that a worker holds before it loads a base: interpreter, torch's CUDA build (its CPU build takes 100 MB less), transformers, trl and
# the rows; and the same on a GPU.
CPU_FIXED = 1000 * 10**6
GPU_FIXED = 64 * 10**6
# Bytes that the driver's context takes in addition to the allocator's memory, and the factor for fragmentation.
GPU_RESERVE = 10**9
FRAGMENTATION = 1.1
# The same on a CPU, for what a step allocates, as measured: a part of it is that a worker keeps what it frees (`tailor/hardware.py`).
FRAGMENTATION_CPU = 1.45
# NF4 with double quantisation: half a byte per weight, and one scale byte per 64 weights.
NF4_BYTES = 0.516
ADAM_BYTES = 16  # f32 weight, gradient and two moments
# Values per token that backward keeps of a layer, as multiples of the width (norms, attention, inputs; on NF4 the layers around the
# quantised modules are in f32), of the key width, and of the inner width.
KEPT_WIDTH, KEPT_WIDTH_NF4, KEPT_KEYS, KEPT_INNER = 12.0, 24.0, 4.0, 4.0
# Bytes per learned token and vocabulary entry: logits as computed, in f32, and their gradients.
SCORE_BYTES = 12.0
# Tokens and vocabulary entries whose logits the chunked loss has in memory at a time (trl 1.16).
TILE = (4096, 32_768)
# DPO also has the reference's logits, and those of the chosen answers once more in f32.
SCORE_BYTES_DPO = 24.0
# Bytes that an engine for rollouts holds on a CPU without its base's weights, keys and values: interpreter, torch and vLLM.
ENGINE_FIXED = 950 * 10**6
# A token that is generated reads all weights for a few tokens instead of for a whole batch.
WRITING_COST = 8.0
# How many times faster the engine writes than the training model does: the `rollout_ratio` of vLLM's own kernels in docs/benchmarks.md.
ENGINE_GAIN = 2.1
# Methods whose checkpoints are compared by held-out loss.
MEASURED = ("sft", "sweep")
START_SECONDS, PROOF_SECONDS = 12.0, 15.0
LOAD_BYTES_PER_SECOND = 200e6


@dataclass(frozen=True)
class Shape:
    """The size of a base.

    `linear` counts the parameters of the layers' linear modules; `targets` lists those that adapters change as (target, inputs, outputs).
    `largest` counts the parameters of the largest tensor. `family` is the `model_type` of transformers.
    """

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
    family: str = ""


@dataclass(frozen=True)
class Load:
    """The work of a stage.

    `tokens` and `learned` are the tokens of its largest micro-batch, `trained` the tokens of all its steps, `written` those that it
    generates itself, and `cached` the tokens in the cache while it does. `skipped` counts the rows that are too long or invalid.
    `unlimited` is `trained` without the recipe's limits on steps and tokens, or 0 if the rows are not chats.
    """

    rows: int
    steps: int
    tokens: int
    learned: int
    trained: int
    written: int = 0
    cached: int = 0
    skipped: int = 0
    unlimited: int = 0


def adapted_modules(recipe: Recipe, shape: Shape) -> list[tuple[str, int, int]]:
    """The linear modules that the recipe's adapter changes, as (name, inputs, outputs)."""
    wanted = recipe.adapter.target_modules
    if recipe.adapter.kind == "none":
        return []
    if isinstance(wanted, str):
        return list(shape.targets)
    return [module for module in shape.targets if has_end(module[0], *wanted)]


def adapter_parameters(recipe: Recipe, shape: Shape) -> int:
    """Number of parameters of the recipe's adapter; 0 if all weights are trained."""
    extra = 1 if recipe.adapter.use_dora else 0
    modules = adapted_modules(recipe, shape)
    return sum(recipe.adapter.r * (inputs + outputs) + extra * outputs for _, inputs, outputs in modules)


def weight_bytes(recipe: Recipe, shape: Shape) -> float:
    """Bytes of the base's weights in memory during training."""
    if recipe.adapter.kind == "qlora":
        # Weights that are not quantised are kept in f32.
        return NF4_BYTES * shape.linear + 4 * (shape.parameters - shape.linear)
    return (2 if recipe.precision == "bf16" else 4) * shape.parameters


def judge_bytes(recipe: Recipe, shape: Shape) -> float:
    """Bytes of the second base, under the reward adapter that scores answers."""
    return weight_bytes(recipe, shape) if any(rule.kind == "model" for rule in recipe.rewards) else 0.0


def trained_bytes(recipe: Recipe, shape: Shape) -> float:
    """Bytes of gradients, moments, the adapter's weights, and the temporaries of an optimiser step."""
    if recipe.adapter.kind != "none":
        copies = 2 if recipe.precision != "f32" else 0
        return (ADAM_BYTES + copies) * adapter_parameters(recipe, shape)
    cast = 2 * shape.linear if recipe.precision == "mixed" else 0
    return (ADAM_BYTES - 4) * shape.parameters + 8 * shape.largest + cast


def kept_bytes(recipe: Recipe, shape: Shape) -> float:
    """Bytes of copies of the trained weights, in f32 and in the CPU's memory: the best ones, or two from which a run beyond its budget is
    restored."""
    if recipe.method in MEASURED:
        return 4 * (adapter_parameters(recipe, shape) or shape.parameters)
    return 2 * 4 * adapter_parameters(recipe, shape) if recipe.method in GENERATING else 0.0


def activation_bytes(recipe: Recipe, shape: Shape, load: Load, *, gpu: bool = False) -> float:
    """Bytes that the largest micro-batch keeps between forward and backward."""
    value = 4 if recipe.precision == "f32" else 2
    width = KEPT_WIDTH_NF4 if recipe.adapter.kind == "qlora" and value == 2 else KEPT_WIDTH
    layer = value * (width * shape.width + KEPT_KEYS * shape.key_width + KEPT_INNER * shape.inner)
    kept = layer * shape.layers
    if recipe.adapter.dropout:
        # A copy of each module's input, and a mask of one byte.
        copy = 4 if recipe.adapter.kind == "qlora" else value
        kept += (copy + 1) * sum(inputs for _, inputs, _ in adapted_modules(recipe, shape))
    if recipe.batch.gradient_checkpointing == "on":
        # The input of each layer, and one layer as it is computed again.
        kept = kept / shape.layers + value * shape.width * shape.layers
    if gpu and recipe.method in MEASURED:
        return kept * load.tokens + SCORE_BYTES * min(shape.vocabulary, TILE[1]) * min(load.learned, TILE[0])
    score = SCORE_BYTES_DPO if recipe.method == "dpo" else SCORE_BYTES
    return kept * load.tokens + score * shape.vocabulary * load.learned


def writing_bytes(recipe: Recipe, shape: Shape, load: Load) -> float:
    """Bytes of the keys and values of answers that are being generated, and of the logits of their next tokens."""
    if recipe.method not in GENERATING:
        return 0.0
    value = 4 if recipe.precision == "f32" else 2
    answers = recipe.rollout.prompts * recipe.rollout.answers
    return load.cached * shape.layers * 2 * shape.key_width * value + answers * shape.vocabulary * SCORE_BYTES


def engine_bytes(recipe: Recipe, shape: Shape, load: Load, *, gpu: bool) -> float:
    """Bytes of the engine: its own base, on a CPU twice because its file is mapped too, and keys, values and logits of a step's answers."""
    base = (2 if recipe.precision != "f32" else 4) * shape.parameters
    return (GPU_FIXED + base if gpu else ENGINE_FIXED + 2 * base) + writing_bytes(recipe, shape, load)


def step_bytes(recipe: Recipe, shape: Shape, load: Load, *, gpu: bool, engine: bool = False) -> float:
    """Bytes that a step allocates and frees. Training and generating alternate, so the larger of them counts."""
    writing = 0.0 if engine else writing_bytes(recipe, shape, load)
    peak = max(activation_bytes(recipe, shape, load, gpu=gpu), writing)
    return peak if gpu else peak * FRAGMENTATION_CPU


def peak_memory(recipe: Recipe, shape: Shape, load: Load, *, gpu: bool, engine: bool = False) -> int:
    """Peak bytes of the GPU's allocator, or of the process, and of the engine that writes its rollouts if there is one.

    The reference of a preference method is the same base with its adapter switched off: it adds no weights.
    """
    fixed = weight_bytes(recipe, shape) + judge_bytes(recipe, shape) + trained_bytes(recipe, shape)
    if not gpu:
        fixed += kept_bytes(recipe, shape)
    peak = step_bytes(recipe, shape, load, gpu=gpu, engine=engine)
    beside = engine_bytes(recipe, shape, load, gpu=gpu) if engine else 0
    return round((GPU_FIXED if gpu else CPU_FIXED) + fixed + peak + beside)


def required_memory(recipe: Recipe, shape: Shape, load: Load, *, gpu: bool, engine: bool = False) -> int:
    """Bytes that the device must have: on a GPU more than the allocator's peak, and at least the base at serving precision, which the
    reload check loads after the trained model is freed."""
    used = peak_memory(recipe, shape, load, gpu=gpu, engine=engine)
    checked = (4 if recipe.precision == "f32" else 2) * (shape.parameters + adapter_parameters(recipe, shape))
    if gpu:
        return round(max(used, GPU_FIXED + checked) * FRAGMENTATION + GPU_RESERVE * (2 if engine else 1))
    # A process on a CPU does not give back everything that it frees.
    at_rest = CPU_FIXED + weight_bytes(recipe, shape) + trained_bytes(recipe, shape)
    return round(max(used, at_rest + CPU_FIXED + max(weight_bytes(recipe, shape), checked)))


def operations(recipe: Recipe, shape: Shape, load: Load, *, engine: bool = False) -> float:
    """Floating-point operations of a stage: per weight and token 2 forward, 2 for input gradients, 2 for weight gradients."""
    small = adapter_parameters(recipe, shape)
    per_token = 6 * shape.linear if recipe.adapter.kind == "none" else 4 * shape.linear + 6 * small
    if recipe.method in ("dpo", *GENERATING):
        # The reference reads the same tokens.
        per_token += 2 * shape.linear
    if recipe.batch.gradient_checkpointing == "on":
        # Forward is computed twice.
        per_token += 2 * shape.linear
    share = load.learned / load.tokens if load.tokens else 0.0
    scores = 6 * shape.vocabulary * shape.width * share
    written = (
        (WRITING_COST / ENGINE_GAIN if engine else WRITING_COST) * 2 * (shape.linear + shape.vocabulary * shape.width)
    )
    return (per_token + scores) * load.trained + written * load.written


def working_seconds(recipe: Recipe, shape: Shape, load: Load, teraflops: float, *, engine: bool = False) -> float:
    """Seconds of all steps and of measuring held-out loss between them, on a device where training reaches `teraflops` TFLOP/s."""
    seconds = operations(recipe, shape, load, engine=engine) / (teraflops * 1e12)
    return seconds * (1 + MEASURING_SHARE if recipe.method in MEASURED else 1)


def other_seconds(shape: Shape) -> float:
    """Seconds around the steps: starting, loading the base twice, and the reload check."""
    return START_SECONDS + PROOF_SECONDS + 2 * 2 * shape.parameters / LOAD_BYTES_PER_SECOND


def choose_nearest(recipe: Recipe, fitting: Iterable[tuple[str, Recipe]]) -> str:
    """The name of the fitting recipe that is nearest: the same kind of adapter, else lora before qlora; then the most tokens per step."""
    kinds = (recipe.adapter.kind, "lora", "qlora", "none")
    ranked = sorted(fitting, key=lambda named: (kinds.index(named[1].adapter.kind), -named[1].batch.tokens, named[0]))
    return ranked[0][0] if ranked else ""
