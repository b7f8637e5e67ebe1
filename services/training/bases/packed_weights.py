"""Weights of AWQ and GPTQ, packed into int32, as the numbers that they stand for.

Both store a linear layer as whole numbers with a scale and a zero for each group of inputs (Lin et al. 2023, arXiv:2306.00978; Frantar et
al. 2022, arXiv:2210.17323). Here is their layout on disk, that of AutoAWQ's GEMM kernel and of AutoGPTQ.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from services.training.bases.files import INDEX, weight_files
from tailor.errors import InvalidArgument, Reason

PACKED = "qweight"
PARTS = ("qzeros", "scales", "g_idx")
# Where each of eight columns lies in AWQ's int32.
AWQ_PLACES = [0, 4, 1, 5, 2, 6, 3, 7]
BITS = {"awq": (4,), "gptq": (4, 8)}

Read = Callable[[str], Any]


def unpack_weights(directory: Path, target: Path, described: Mapping[str, Any]) -> None:
    """Write the weights in `directory`, quantised as `described` says, in bf16 into `target`, one file at a time.

    Raises InvalidArgument (QUANTISED).
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    method, bits = described["quant_method"], described.get("bits")
    if bits not in BITS[method] or str(described.get("version", "gemm")).lower() != "gemm":
        raise InvalidArgument(
            Reason.QUANTISED,
            "The weights are quantised by AWQ or GPTQ in a form that cannot be read here: AWQ needs 4 bits and version gemm, GPTQ 4 or "
            "8 bits. Add the model in bf16, f16 or f32.",
        )
    contents = {file: _list_names(file) for file in weight_files(directory)}
    places = {name: file for file, names in contents.items() for name in names}

    def read(name: str) -> Any:
        with safe_open(places[name], framework="pt") as tensors:
            return tensors.get_tensor(name)

    weight_map: dict[str, str] = {}
    target.mkdir()
    for file, names in contents.items():
        plain = {}
        for name in names:
            layer, _, part = name.rpartition(".")
            if part == PACKED:
                plain[f"{layer}.weight"] = _read_layer(layer, read, described, f"{layer}.g_idx" in places)
            elif part not in PARTS or f"{layer}.{PACKED}" not in places:
                plain[name] = read(name)
        if plain:
            save_file(plain, target / file.name, metadata={"format": "pt"})
            weight_map |= dict.fromkeys(plain, file.name)
    if (directory / INDEX).exists():
        (target / INDEX).write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")


def _list_names(file: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as tensors:
        return list(tensors.keys())


def _read_layer(layer: str, read: Read, described: Mapping[str, Any], ordered: bool) -> Any:
    """A linear layer's weights in bf16, (outputs, inputs). If it is `ordered`, each input names its group."""
    import torch

    bits = described["bits"]
    packed, zeros, scales = (read(f"{layer}.{part}") for part in (PACKED, "qzeros", "scales"))
    zeros = _unpack(zeros, bits)
    if described["quant_method"] == "awq":
        values, zeros = _reorder(_unpack(packed, bits)), _reorder(zeros)
    else:
        values = _unpack(packed.T, bits).T
        # The first version of the format stores zeros less one.
        zeros = zeros if described.get("checkpoint_format") == "gptq_v2" else (zeros + 1) & (2**bits - 1)
    groups = read(f"{layer}.g_idx").long() if ordered else torch.arange(len(values)) // (len(values) // len(scales))
    return ((values - zeros[groups]) * scales.float()[groups]).T.to(torch.bfloat16).contiguous()


def _unpack(packed: Any, bits: int) -> Any:
    """The numbers of a matrix of int32, the lowest bits first, in rows that are 32 / `bits` times as long."""
    import torch

    return (packed.unsqueeze(-1) >> torch.arange(0, 32, bits) & (2**bits - 1)).flatten(-2)


def _reorder(values: Any) -> Any:
    return values.unflatten(-1, (-1, len(AWQ_PLACES)))[..., AWQ_PLACES].flatten(-2)
