"""What vLLM, the engine that serves, can do for a base: vLLM itself is asked, with a tiny model of the base's configuration.

It runs in a child process, `python -m services.training.bases.engine_support`, which imports it while weights are fetched. The child reads
the question as one JSON object and prints the answer as another.
"""

import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from services.training.adapters.child_process import answer_parent, read_child, start_child
from services.training.bases.adapted_layers import COMMON, Layers, name_of
from tailor.codec import load

MODULE = "services.training.bases.engine_support"
ASK_SECONDS = 600.0
# The largest rank that is served, of those that the engine knows.
MAX_RANK = 256


@dataclass(frozen=True)
class EngineSupport:
    """`layers` are the paths of the layers whose adapters the engine applies, up to `max_rank`.

    `refusal` is why it serves no adapters of the base and what to do, in sentences; empty if it does.
    """

    layers: tuple[str, ...]
    max_rank: int = MAX_RANK
    refusal: str = ""


# Answers for a tiny configuration and the linear layers of its model.
AskEngine = Callable[[Any, Layers], EngineSupport]


def assume_common(config: Any, layers: Layers) -> EngineSupport:
    """The answer if no engine is asked: the layers that are adapted in every class, or all if there are none of them."""
    del config
    return EngineSupport(tuple(path for path in layers if name_of(path) in COMMON) or tuple(layers))


def start_engine() -> AskEngine:
    """Start vLLM in a child process, if it is installed, and return a function that asks it once, and a new child if it refuses.

    That blocks for up to twenty minutes. It raises InvalidArgument or Unavailable (CHILD_TIMEOUT, CHILD_KILLED).
    """
    if importlib.util.find_spec("vllm") is None:
        return assume_common
    child = start_child(MODULE, [])

    def ask(config: Any, layers: Layers) -> EngineSupport:
        with tempfile.TemporaryDirectory() as folder:
            config.save_pretrained(folder)
            question = json.dumps({"folder": folder, "layers": layers})
            read = partial(read_child, module=MODULE, seconds=ASK_SECONDS, field="engine's list", request=question)
            found = read(child)
            # That a class cannot be inspected may be chance, and vLLM keeps it for as long as its process lives.
            return load(EngineSupport, read(start_child(MODULE, [])) if found["refusal"] else found)

    return ask


def answer(question: Mapping[str, Any]) -> EngineSupport:
    """Build the tiny model in vLLM, and see which of the layers it adapts."""
    import vllm
    from vllm.model_executor.models.interfaces import supports_lora

    layers = {path: (inputs, outputs) for path, (inputs, outputs) in question["layers"].items()}
    engine = f"vLLM {vllm.__version__}"
    try:
        with _build(question["folder"]) as (model, lora):
            name = type(model).__name__
            found = tuple(_find_adapted(model, layers, lora)) if supports_lora(model) else ()
    except Exception as error:  # noqa: BLE001 - a class that nobody tried here may raise anything
        reason = " ".join(str(error).split())[:200]
        return EngineSupport(
            (),
            refusal=f"{engine} cannot build this model on this machine ({type(error).__name__}: {reason}). Use another base, or train and "
            "serve where vLLM can, such as on a GPU.",
        )
    refusal = f'{engine} serves no adapters of {name}. Set adapter.use_dora = true, or adapter.kind = "none", and add the result as a base.'
    return EngineSupport(found, refusal="" if found else refusal)


@contextmanager
def _build(folder: str) -> Iterator[tuple[Any, Any]]:
    """The tiny model, and how it would be adapted, in process groups that end with it."""
    from vllm.config import DeviceConfig, LoadConfig, LoRAConfig, ModelConfig, VllmConfig, set_current_vllm_config
    from vllm.distributed import init_distributed_environment, initialize_model_parallel
    from vllm.distributed.parallel_state import destroy_distributed_environment, destroy_model_parallel
    from vllm.model_executor.model_loader.utils import initialize_model

    model_config = ModelConfig(
        model=folder, tokenizer=folder, skip_tokenizer_init=True, dtype="float32", enforce_eager=True
    )
    lora = LoRAConfig(max_lora_rank=8, max_loras=1)
    config = VllmConfig(
        model_config=model_config,
        load_config=LoadConfig(load_format="dummy"),
        device_config=DeviceConfig(device="cpu"),
        lora_config=lora,
    )
    with set_current_vllm_config(config):
        init_distributed_environment(1, 0, f"file://{folder}/group", 0, backend="gloo")
        try:
            initialize_model_parallel(1, 1)
            yield initialize_model(vllm_config=config, model_config=model_config), lora
        finally:
            destroy_model_parallel()
            destroy_distributed_environment()


def _find_adapted(model: Any, layers: Layers, lora: Any) -> list[str]:
    """The layers that vLLM finds under their paths in its own model, in their sizes, and can wrap.

    This follows `LoRAModelManager`, which ignores matrices of layers that it does not find, and does not start if it should adapt a layer
    that it cannot wrap.
    """
    from vllm.lora.utils import from_layer, is_in_target_modules, process_packed_modules_mapping

    packing = process_packed_modules_mapping(model)
    wanted = sorted({name_of(path) for path in layers})
    adapted: dict[str, tuple[int, int]] = {}
    refused: set[str] = set()
    seen: set[int] = set()
    for path, module in model.named_modules(remove_duplicate=False):
        if id(module) in seen or not is_in_target_modules(path, wanted, packing):
            continue
        seen.add(id(module))
        parts = packing.get(name_of(path), [])
        wrapped = from_layer(module, 1, lora, parts, model.config)
        if wrapped is module:
            refused |= {name_of(path), *parts}
        else:
            adapted |= _sizes_of(path, wrapped, parts)
    return [
        path
        for path, sizes in layers.items()
        if name_of(path) not in refused and adapted.get(_map_path(model, path)) == sizes
    ]


def _sizes_of(path: str, wrapped: Any, parts: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of the layers that vLLM packs into one, by their own paths, or of one that is not packed."""
    inputs = wrapped.lora_a_stacked[0].shape[-1]
    outputs = [matrix.shape[-2] for matrix in wrapped.lora_b_stacked]
    if len(parts) <= 1:
        return {path: (inputs, sum(outputs))}
    parent = path.rpartition(".")[0]
    return {f"{parent}.{part}": (inputs, size) for part, size in zip(parts, outputs, strict=False)}


def _map_path(model: Any, path: str) -> str:
    """The path that vLLM gives to a layer of transformers' model."""
    from vllm.lora.utils import parse_fine_tuned_lora_name

    mapper = getattr(model, "hf_to_vllm_mapper", None)
    name, _ = parse_fine_tuned_lora_name(
        f"base_model.model.{path}.lora_A.weight", mapper.get_rename_mapper() if mapper else None
    )
    return str(name)


def _work() -> Mapping[str, Any]:
    from tailor.engine.environment import prepare_environment

    prepare_environment(1, 1)
    # What is served does not depend on a device, and the machine that adds bases may have none.
    os.environ["VLLM_TARGET_DEVICE"] = "cpu"
    import vllm.lora.utils
    import vllm.model_executor.model_loader.utils  # noqa: F401 - imported before the question comes

    return asdict(answer(json.loads(sys.stdin.read())))


def main() -> int:
    """The child process. Returns its exit code."""
    return answer_parent(_work)


if __name__ == "__main__":
    sys.exit(main())
