"""Layers of an engine's model that add an adapter to the outputs of their parts."""

from typing import ClassVar

import pytest
import torch
from torch import nn

from services.training.methods.engine_layers import Linear, adapt

RANK = 2


class Product:
    """The product with weights (out, in), which are not packed here."""

    def __init__(self, weights: torch.Tensor) -> None:
        self._weights = weights

    def __call__(self, x: torch.Tensor, _: object, bias: torch.Tensor | None) -> torch.Tensor:
        return nn.functional.linear(x, self._weights, bias)

    def with_adapter(self, a: torch.Tensor, b: torch.Tensor) -> Linear:
        """With the matrices as they are now."""
        kept = a.clone(), b.clone()
        return lambda x, weight, bias: self(x, weight, bias) + x @ kept[0].t() @ kept[1].t()


class Layer(nn.Module):  # type: ignore[misc]
    """A linear layer as vLLM has it once its weights are packed."""

    def __init__(self, width: int, parts: list[int]) -> None:
        super().__init__()
        self.input_size, self.output_size, self.params_dtype = width, sum(parts), torch.float32
        if len(parts) > 1:
            self.output_sizes = parts
        self.cpu_linear = Product(torch.randn(sum(parts), width))


class Model(nn.Module):  # type: ignore[misc]
    packed_modules_mapping: ClassVar = {"qkv_proj": ["q_proj", "k_proj", "v_proj"]}

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.ModuleDict({"qkv_proj": Layer(6, [4, 2, 3]), "o_proj": Layer(4, [6]), "act": nn.SiLU()})


def matrices(**widths: tuple[int, int]) -> dict[tuple[str, bool], torch.Tensor]:
    """A and B of each module, which has the given numbers of inputs and outputs."""
    return {
        (f"block.{name}", is_a): torch.randn(RANK, width) if is_a else torch.randn(out, RANK)
        for name, (width, out) in widths.items()
        for is_a in (True, False)
    }


def test_each_part_gets_its_own_adapter_and_a_part_without_one_stays_as_it_is() -> None:
    model, x = Model(), torch.randn(5, 6)
    plain = model.block["qkv_proj"].cpu_linear(x, None, None)
    (layer,) = adapt(model, RANK, {"q_proj", "v_proj"})
    assert torch.equal(model.block["qkv_proj"].cpu_linear(x, None, None), plain)
    for _ in range(2):  # the second adapter replaces the first
        weights = matrices(q_proj=(6, 4), v_proj=(6, 3))
        assert layer.take(weights, 0.5) == {"block.q_proj", "block.v_proj"}
        added = model.block["qkv_proj"].cpu_linear(x, None, None) - plain
        for part, columns in (("q_proj", slice(0, 4)), ("v_proj", slice(6, 9))):
            expected = 0.5 * x @ weights[f"block.{part}", True].t() @ weights[f"block.{part}", False].t()
            assert torch.allclose(added[:, columns], expected, atol=1e-5)
        assert not added[:, 4:6].any()


def test_layer_of_one_part_keeps_its_bias_and_the_shape_of_its_rows() -> None:
    model, x, bias = Model(), torch.randn(2, 3, 4), torch.randn(6)
    plain = model.block["o_proj"].cpu_linear(x, None, bias)
    (layer,) = adapt(model, RANK, {"o_proj"})
    weights = matrices(o_proj=(4, 6))
    layer.take(weights, 1.0)
    expected = plain + x @ weights["block.o_proj", True].t() @ weights["block.o_proj", False].t()
    assert torch.allclose(model.block["o_proj"].cpu_linear(x, None, bias), expected, atol=1e-5)
    assert layer.take({}, 1.0) == set()
    assert torch.equal(model.block["o_proj"].cpu_linear(x, None, bias), plain)


@pytest.mark.parametrize("missing", ["gate_proj", "act"])
def test_adapter_for_a_layer_that_the_model_lacks_is_refused(missing: str) -> None:
    with pytest.raises(ValueError, match=missing):
        adapt(Model(), RANK, {"q_proj", missing})
