"""Checkpoints that are published quantised: written in bf16, on which they are trained.

Where only weights are quantised, what is computed with them is the same, so inference may load them as they were published.
"""

import json
from pathlib import Path
from typing import Any

from services.training.bases import packed_weights, text_tower
from services.training.bases.files import read_json
from tailor.errors import InvalidArgument, Reason

QUANTISATION = "quantization_config"
SHARD = "4GB"


def find_quantisation(config: dict[str, Any]) -> str:
    """The method by which the weights that a config.json describes are quantised; empty if they are not."""
    described = config.get(QUANTISATION)
    return str(described.get("quant_method", "an unnamed method")) if isinstance(described, dict) else ""


def is_served_as_published(config: dict[str, Any]) -> bool:
    """True if vLLM computes with the weights that a config.json describes as if they were in bf16: 4 bits, and activations as they are.

    Its kernels for processors and for GPUs do so for AWQ, symmetric GPTQ, and packed weights of compressed-tensors; it refuses inputs that
    lie in groups by activation order (`desc_act`).
    """
    if text_tower.is_whole(config):
        return False
    described = config.get(QUANTISATION, {})
    match find_quantisation(config):
        case "awq":
            return True
        case "gptq":
            ordered = not described.get("desc_act") and not described.get("dynamic")
            return described.get("bits") == 4 and described.get("sym") is True and ordered
        case "compressed-tensors":
            groups = described.get("config_groups")
            return (
                described.get("format") == "pack-quantized"
                and isinstance(groups, dict)
                and all(map(_are_plain, groups.values()))
            )
    return False


def _are_plain(group: Any) -> bool:
    """True if the layers of a group of compressed-tensors have weights of 4 bits, stored in order, and activations as they are."""
    weights = group.get("weights") if isinstance(group, dict) else None
    return (
        isinstance(weights, dict)
        and weights.get("num_bits") == 4
        and weights.get("actorder") in (None, "weight", "static")
        and not group.get("input_activations")
    )


def dequantise(directory: Path, target: Path) -> None:
    """Write the weights of a quantised model in bf16, with its configuration, into `target`. Needs memory for all of them in bf16.

    Raises InvalidArgument (QUANTISED, BASE_UNREADABLE).
    """
    import torch
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        CompressedTensorsConfig,
        FineGrainedFP8Config,
        Mxfp4Config,
    )

    described = read_json(directory / "config.json")
    method = find_quantisation(described)
    readers = {"compressed-tensors": CompressedTensorsConfig, "fp8": FineGrainedFP8Config, "mxfp4": Mxfp4Config}
    if method in packed_weights.BITS:
        _unpack(directory, target, described)
        return
    if method not in readers:
        known = ", ".join(sorted({*readers, *packed_weights.BITS}))
        raise InvalidArgument(
            Reason.QUANTISED,
            f"The weights are quantised by {method}, which cannot be read here; {known} can. Add the model in bf16, "
            "f16 or f32.",
        )
    AutoModel = AutoModelForImageTextToText if text_tower.is_whole(described) else AutoModelForCausalLM
    try:
        model = AutoModel.from_pretrained(
            directory,
            dtype=torch.bfloat16,
            quantization_config=readers[method](dequantize=True),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError) as error:
        raise _unreadable(error) from None
    save_plain(model, target)


def _unpack(directory: Path, target: Path, described: dict[str, Any]) -> None:
    from safetensors import SafetensorError

    try:
        packed_weights.unpack_weights(directory, target, described[QUANTISATION])
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        RuntimeError,
        ArithmeticError,
        SafetensorError,
    ) as error:
        raise _unreadable(error) from None
    plain = {name: value for name, value in described.items() if name != QUANTISATION}
    (target / "config.json").write_text(json.dumps(plain), encoding="utf-8")


def _unreadable(error: Exception) -> InvalidArgument:
    return InvalidArgument(
        Reason.BASE_UNREADABLE, f"The quantised weights cannot be read in bf16 ({type(error).__name__})."
    )


def save_plain(model: Any, target: Path) -> None:
    """Save a model that was read by the rules of a quantisation as its class does it without them, and without the scales."""
    import torch

    model.config.__dict__.pop(QUANTISATION, None)
    model.hf_quantizer, model.is_quantized, model._weight_conversions = None, False, None
    with torch.device("meta"):
        names = type(model)(model.config).state_dict().keys()
    weights = {name: tensor for name, tensor in model.state_dict().items() if name in names}
    model.save_pretrained(target, state_dict=weights, max_shard_size=SHARD)
