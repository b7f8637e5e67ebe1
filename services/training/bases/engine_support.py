"""What vLLM serves of a base: to which layers it applies adapters, or why it does not, as its own classes say.

`ask_engine` runs `python -m services.training.bases.engine_support FOLDER`, because vLLM takes seconds and its process groups for itself.
The model is built on torch's `meta` device, without memory for weights.
"""

import importlib.util
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.training.adapters.child_process import answer_parent, run_child
from tailor.codec import load
from tailor.engine.environment import prepare_environment
from tailor.errors import TailorError

MODULE = "services.training.bases.engine_support"
SECONDS = 300


@dataclass(frozen=True)
class EngineSupport:
    """The names of the layers to which vLLM applies adapters, as transformers calls them, or why it serves no adapter of this base."""

    targets: Sequence[str] = ()
    refusal: str = ""


def ask_engine(base: Path) -> EngineSupport | None:
    """What vLLM here serves of the base in a folder; None if it is not installed. Takes 10 to 30 seconds."""
    if importlib.util.find_spec("vllm") is None:
        return None
    try:
        return load(EngineSupport, run_child(MODULE, [str(base)], SECONDS, "base"))
    except TailorError as error:
        # An error of vLLM is also an answer: it cannot build the model here.
        return EngineSupport(refusal=f"vLLM cannot build this base here ({error.message})")


def describe_support(base: Path) -> Mapping[str, Any]:
    """The fields of EngineSupport, in this process. Raises what vLLM raises for a configuration."""
    import torch
    from vllm.config import (
        CacheConfig,
        DeviceConfig,
        LoadConfig,
        ModelConfig,
        ParallelConfig,
        VllmConfig,
        set_current_vllm_config,
    )
    from vllm.distributed import init_distributed_environment, initialize_model_parallel
    from vllm.lora.utils import get_supported_lora_modules
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.model_executor.models.interfaces import supports_lora

    model_config = ModelConfig(
        model=str(base), tokenizer=str(base), skip_tokenizer_init=True, dtype="bfloat16", enforce_eager=True
    )
    config = VllmConfig(
        model_config=model_config,
        cache_config=CacheConfig(),
        parallel_config=ParallelConfig(),
        load_config=LoadConfig(load_format="dummy"),
        device_config=DeviceConfig(device="cpu"),
    )
    with tempfile.NamedTemporaryFile() as rendezvous, set_current_vllm_config(config):
        init_distributed_environment(1, 0, f"file://{rendezvous.name}-group", 0, backend="gloo")
        initialize_model_parallel(1, 1)
        with torch.device("meta"):
            model = initialize_model(vllm_config=config, model_config=model_config)
    if not supports_lora(model):
        return {"refusal": f"vLLM serves {type(model).__name__} without adapters only"}
    packed = getattr(model, "packed_modules_mapping", None) or {}
    names = {name for module in get_supported_lora_modules(model) for name in packed.get(module, [module])}
    return {"targets": sorted(names)}


def main(arguments: Sequence[str]) -> int:
    """The child process. Returns its exit code."""
    prepare_environment(1, 1)
    return answer_parent(lambda: describe_support(Path(arguments[0])))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
