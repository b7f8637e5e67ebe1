"""Sizes of pods for a base, by the arithmetic of `tailor run plan`: `python -m deploy.sizes FOLDER [CONTEXT PLACES ROW_TOKENS]`.

FOLDER has the base's config.json. `k8s/components/size-*` have these figures, rounded up; a test compares them.
"""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from services.training.planning import forecast
from services.training.planning.forecast import Load, Shape
from services.training.recipe import FOLDER, Recipe, load_stages

# A process with torch, vLLM and CUDA's libraries, before it loads a base.
PROCESS_BYTES = 4 * 10**9
# vLLM's default share of a GPU's memory.
GPU_SHARE = 0.9
# Of a store that many replicas read at the same time, and of a busy replica: too short a time cuts answers or restarts pods.
STORE_BYTES_PER_SECOND = 50e6
TOKENS_PER_SECOND = 10.0
# An engine's start once its base is on the disk: loading, profiling, adapters.
ENGINE_SECONDS = 120.0
# The largest file of a base is copied in memory.
SHARD_BYTES = 5 * 10**9
DATASET_BYTES = 4 * 10**9
# The service keeps two checkpoints, while a third is written.
CHECKPOINTS = 3


@dataclass(frozen=True)
class ServingLoad:
    """A replica's work: `places` answers of up to `context` tokens, `slots` adapters in memory, `adapters` on its disk."""

    context: int
    places: int
    slots: int
    adapters: int = 100


@dataclass(frozen=True)
class ServingSize:
    """The needs of a replica of inference."""

    gpu_bytes: int
    memory_bytes: int
    disk_bytes: int
    start_seconds: float
    stop_seconds: float


@dataclass(frozen=True)
class Training:
    """The needs of a worker, and of the training service while it adds the base."""

    gpu_bytes: int
    memory_bytes: int
    disk_bytes: int
    service_memory_bytes: int
    service_disk_bytes: int


def plan_serving(shape: Shape, adapter: Recipe, load: ServingLoad) -> ServingSize:
    """Weights and adapters in bf16, and the keys and values of every place with a full context."""
    weights, cached = 2 * shape.parameters, 2 * 2 * shape.layers * shape.key_width
    learned = 2 * forecast.adapter_parameters(adapter, shape)
    return ServingSize(
        gpu_bytes=round((weights + load.slots * learned + load.places * load.context * cached) / GPU_SHARE),
        memory_bytes=weights + PROCESS_BYTES,
        disk_bytes=weights + load.adapters * learned,
        start_seconds=weights / STORE_BYTES_PER_SECOND + ENGINE_SECONDS,
        stop_seconds=load.context / TOKENS_PER_SECOND,
    )


def plan_training(shape: Shape, recipe: Recipe, row_tokens: int) -> Training:
    """One GPU for a step of the longest row; on the disk the base, the dataset and checkpoints."""
    weights = 2 * shape.parameters
    step = Load(rows=1, steps=1, tokens=row_tokens, learned=row_tokens, trained=row_tokens)
    return Training(
        gpu_bytes=forecast.required_memory(recipe, shape, step, gpu=True),
        memory_bytes=weights + PROCESS_BYTES,
        disk_bytes=weights + DATASET_BYTES + round(CHECKPOINTS * forecast.trained_bytes(recipe, shape)),
        service_memory_bytes=2 * min(weights, SHARD_BYTES) + 10**9,
        # The source, and its copy in bf16.
        service_disk_bytes=2 * weights,
    )


def load_recipe(name: str) -> Recipe:
    """One of Tailor's recipes with one stage."""
    (stage,) = load_stages(name, FOLDER)
    return stage.recipe


def main(folder: str, context: int = 8192, places: int = 16, row_tokens: int = 4096) -> None:
    """Print what the base needs, in gigabytes and seconds."""
    from services.training.planning.base_shape import read_shape

    shape, recipe = read_shape(Path(folder)), load_recipe("lora")
    print(
        f"{shape.parameters / 1e9:.2f} billion parameters; {context} tokens for {places} answers; rows of {row_tokens} tokens"
    )
    for title, needs in (
        ("inference", plan_serving(shape, recipe, ServingLoad(context, places, slots=4))),
        ("training", plan_training(shape, recipe, row_tokens)),
    ):
        for name, value in asdict(needs).items():
            is_size = name.endswith("_bytes")
            amount = f"{value / 1e9:.1f} GB" if is_size else f"{value:.0f} s"
            print(f"{title}: {name.removesuffix('_bytes').removesuffix('_seconds').replace('_', ' ')} {amount}")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
