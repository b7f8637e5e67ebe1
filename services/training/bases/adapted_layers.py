"""The linear layers of a base that adapters change, and the names by which peft and engines find them."""

import copy
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any

from tailor.layer_paths import has_end

# Inputs and outputs of layers, by path.
Layers = Mapping[str, tuple[int, int]]
# Parts of the paths of layers that choose experts. They stay as they are, as is usual: a small change sends tokens to other experts.
ROUTERS = {"gate", "router", "shared_expert_gate"}
# Layers that vLLM and transformers adapt in every class that has them, where vLLM is not there to be asked.
COMMON = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def list_linear(model: Any) -> Layers:
    """All linear layers of a model, without the one that scores tokens."""
    import torch

    head = model.get_output_embeddings()
    return {
        path: (layer.in_features, layer.out_features)
        for path, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and layer is not head
    }


def list_adaptable(model: Any) -> Layers:
    """The linear layers of a small model that peft adapts, without routers."""
    layers = {path: sizes for path, sizes in list_linear(model).items() if not ROUTERS & set(path.split("."))}
    refused = {name for name in map(name_of, layers) if not _is_adapted(model, name)}
    return {path: sizes for path, sizes in layers.items() if name_of(path) not in refused}


def list_experts(model: Any) -> set[str]:
    """Names of the modules with the weights of all experts in one tensor."""
    return {
        name_of(path)
        for path, module in model.named_modules()
        if "expert" in path and any(weights.dim() > 2 for weights in module.parameters(recurse=False))
    }


def name_layers(chosen: Collection[str], layers: Collection[str]) -> tuple[str, ...]:
    """The shortest ends of paths that chosen layers have, and no others. Layers that only their number tells from others get no name."""
    others = set(layers) - set(chosen)
    names: dict[str, None] = {}
    for path in chosen:
        unique = (end for end in _ends_of(path) if not any(has_end(other, end) for other in others))
        names |= dict.fromkeys([end] if (end := next(unique, "")) else [])
    return tuple(names)


def _ends_of(path: str) -> Iterator[str]:
    """The ends of a path, from the shortest, without the number of a layer: a small model has others than its base."""
    end = ""
    for part in reversed(path.split(".")):
        if part.isdigit():
            return
        end = f"{part}.{end}" if end else part
        yield end


def name_of(path: str) -> str:
    """The last part of a path."""
    return path.rpartition(".")[2]


def _is_adapted(model: Any, name: str) -> bool:
    """False for layers that peft refuses, those of state space models that their kernels read without calling them, and for layers whose
    name it takes for the weights of experts.
    """
    from peft import LoraConfig, inject_adapter_in_model

    with suppress(ValueError):
        config = LoraConfig(r=1, target_modules=[name])
        inject_adapter_in_model(config, copy.deepcopy(model))
        return not config.target_parameters
    return False
