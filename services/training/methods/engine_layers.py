"""Layers of vLLM's model that add one adapter to the output of the base's packed weights. Imports torch only.

LoRA: Hu et al. 2021.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

# The product of rows (..., in) with a layer's weights, which are the second argument unless they are packed, and its bias, if it has one.
Linear = Callable[[torch.Tensor, Any, torch.Tensor | None], torch.Tensor]


class AdaptedLayer:
    """A layer of vLLM's model, which may be several of the adapter's: `parts` are their names, `widths` the sizes of their outputs.

    It has the matrices of all parts at once: A as (parts * rank, in), and B as (sum of widths, parts * rank), which is zero outside its
    diagonal of parts. The layer's product with its packed weights is one of `engine_products.py`.
    """

    def __init__(self, layer: Any, parts: Sequence[str], rank: int) -> None:
        self.parts = parts
        self._widths = getattr(layer, "output_sizes", [layer.output_size])
        self._a = torch.zeros(len(parts) * rank, layer.input_size, dtype=layer.params_dtype)
        self._b = torch.zeros(sum(self._widths), len(parts) * rank, dtype=layer.params_dtype)
        self._rank = rank
        self._plain: Any = layer.cpu_linear
        self._product: Linear = self._plain
        layer.cpu_linear = self._compute

    def _compute(self, x: torch.Tensor, weight: Any, bias: torch.Tensor | None) -> torch.Tensor:
        return self._product(x, weight, bias)

    def take(self, matrices: Mapping[tuple[str, bool], torch.Tensor], scale: float) -> set[str]:
        """Copy the adapter's matrices, which are named by their module and whether they are A. Returns the modules that it had."""
        first, taken = 0, set()
        self._a.zero_()
        self._b.zero_()
        for number, (part, width) in enumerate(zip(self.parts, self._widths, strict=True)):
            ranks, outputs = slice(number * self._rank, (number + 1) * self._rank), slice(first, first + width)
            first += width
            if (part, True) in matrices:
                self._a[ranks] = matrices[part, True]
                self._b[outputs, ranks] = matrices[part, False] * scale
                taken.add(part)
        self._product = self._plain.with_adapter(self._a, self._b) if taken else self._plain
        return taken


def adapt(model: Any, rank: int, targets: set[str]) -> list[AdaptedLayer]:
    """Prepare all layers of vLLM's model with a module of the given names, such as q_proj. The adapter is zero.

    Raises ValueError if the model has none for one of the names.
    """
    packed = getattr(model, "packed_modules_mapping", {})
    layers: list[AdaptedLayer] = []
    for path, layer in model.named_modules():
        prefix, _, name = path.rpartition(".")
        parts = packed.get(name, [name])
        # Only linear layers with the base's own weights have one, not quantized layers.
        if not hasattr(getattr(layer, "cpu_linear", None), "with_adapter") or targets.isdisjoint(parts):
            continue
        layers.append(AdaptedLayer(layer, [f"{prefix}.{part}" for part in parts], rank))
    if missing := targets - {part.rpartition(".")[2] for layer in layers for part in layer.parts}:
        raise ValueError(f"The engine's model has no linear layer {min(missing)}.")
    return layers
