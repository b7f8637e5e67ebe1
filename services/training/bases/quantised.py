"""Checkpoints that are published quantised, written in bf16, which is what they are trained on and served in."""

from pathlib import Path
from typing import Any

from services.training.bases import text_tower
from services.training.bases.files import read_json
from tailor.errors import InvalidArgument, Reason

QUANTISATION = "quantization_config"
SHARD = "4GB"


def find_quantisation(config: dict[str, Any]) -> str:
    """The method by which the weights that a config.json describes are quantised; empty if they are not."""
    described = config.get(QUANTISATION)
    return str(described.get("quant_method", "an unnamed method")) if isinstance(described, dict) else ""


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
    if method not in readers:
        raise InvalidArgument(
            Reason.QUANTISED,
            f"The weights are quantised by {method}, which cannot be read here; {', '.join(sorted(readers))} can. Add the model in bf16, "
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
        raise InvalidArgument(
            Reason.BASE_UNREADABLE, f"The quantised weights cannot be read in bf16 ({type(error).__name__})."
        ) from None
    save_plain(model, target)


def save_plain(model: Any, target: Path) -> None:
    """Save a model that was read by the rules of a quantisation as its class does it without them, and without the scales."""
    import torch

    model.config.__dict__.pop(QUANTISATION, None)
    model.hf_quantizer, model.is_quantized, model._weight_conversions = None, False, None
    with torch.device("meta"):
        names = type(model)(model.config).state_dict().keys()
    weights = {name: tensor for name, tensor in model.state_dict().items() if name in names}
    model.save_pretrained(target, state_dict=weights, max_shard_size=SHARD)
