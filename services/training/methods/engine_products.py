"""Products of rows with a layer's weights on a CPU, and with an adapter that is added to them, by vLLM's kernels.

Which kernel is faster depends on the processor. With AMX it is oneDNN's. With AVX-512 for bf16, but without AMX, it is SGLang's: on an
Intel Xeon it takes a fifth less with 7 to 14 rows, and it packs an adapter, which changes in each step, in no time. vLLM itself uses
SGLang's with AMX only.
"""

from typing import Any

import torch
from torch.nn.functional import pad
from vllm import _custom_ops as custom_ops
from vllm.model_executor.layers import utils

from services.training.methods.engine_layers import Linear

# Numbers of rows for which oneDNN keeps its plan of a product, as vLLM has it.
PREPARED_SIZES = 32
# Steps of more rows, such as those that read prompts, allocate new memory for their results.
KEPT_ROWS = 64
# Columns in a block of SGLang's kernel, which multiplies as many inputs at a time.
BLOCK = 32


def pack_weights(dtype: torch.dtype) -> None:
    """Let vLLM pack the weights of all linear layers for these products. Call it before they are loaded."""
    utils.dispatch_cpu_unquantized_gemm = Packer(dtype)


class Packer:
    """Gives a linear layer its product, in the place of vLLM's own choice."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._choose = utils.dispatch_cpu_unquantized_gemm
        self._narrow, self._wide, self._inputs = Results(dtype), Results(dtype), WidenedRows()

    def __call__(self, layer: Any, remove_weight: bool) -> None:
        """Pack the layer's weights (out, in), and let go of them if nothing else needs them."""
        weights = layer.weight
        if weights.is_meta or weights.dim() != 2:  # the layer of another process, or not linear
            self._choose(layer, remove_weight)
            return
        if SglangProduct.can_pack(weights):
            layer.cpu_linear = SglangProduct(weights, self._inputs)
        else:
            layer.cpu_linear = OneDnnProduct(weights, self._narrow, self._wide)
        if remove_weight:
            layer.weight = torch.nn.Parameter(weights.new_empty(0), requires_grad=False)


class Results(dict[tuple[int, int], torch.Tensor]):
    """One tensor for all results of a size (rows, columns) that are read before the next one of that size is computed."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def __missing__(self, size: tuple[int, int]) -> torch.Tensor:
        result = torch.empty(size, dtype=self._dtype)
        if size[0] <= KEPT_ROWS:
            self[size] = result
        return result


class OneDnnProduct:
    """The product with weights (out, in) that oneDNN has packed. `narrow` and `wide` are for the results of adapters."""

    def __init__(self, weights: torch.Tensor, narrow: Results, wide: Results) -> None:
        self._weights, self._narrow, self._wide = _pack_by_onednn(weights), narrow, wide
        self._multiply = torch.ops._C.onednn_mm.default

    def __call__(self, x: torch.Tensor, _: object = None, bias: torch.Tensor | None = None) -> torch.Tensor:
        """The product of x (..., in)."""
        y = torch.empty((*x.shape[:-1], self._weights.n), dtype=x.dtype)
        rows = x if x.dim() == 2 else x.reshape(-1, self._weights.k)
        self._multiply(y, rows, bias, self._weights.handler_tensor)
        return y

    def with_adapter(self, a: torch.Tensor, b: torch.Tensor) -> Linear:
        """The product to which that with A (rank, in) and then B (out, rank) is added."""
        narrow, wide, multiply = self._narrow, self._wide, self._multiply
        first, second = _pack_by_onednn(a), _pack_by_onednn(b)
        columns, rank = b.shape

        def add(x: torch.Tensor, _: object = None, bias: torch.Tensor | None = None) -> torch.Tensor:
            y = self(x, None, bias)
            rows = x if x.dim() == 2 else x.reshape(-1, x.size(-1))
            times_a, times_b = narrow[rows.size(0), rank], wide[rows.size(0), columns]
            multiply(times_a, rows, None, first.handler_tensor)
            multiply(times_b, times_a, None, second.handler_tensor)
            return y.add_(times_b.view(y.shape))

        return add


def _pack_by_onednn(matrix: torch.Tensor) -> Any:
    """A matrix (out, in). With so few columns or rows as an adapter has, its products take half as long as torch's."""
    return custom_ops.create_onednn_mm(matrix.t(), PREPARED_SIZES)


class SglangProduct:
    """The product with weights (out, in) in blocks of columns. B of an adapter follows in each block: one product computes both sums."""

    def __init__(self, weights: torch.Tensor, inputs: "WidenedRows") -> None:
        self._inputs, (self._out, self._in) = inputs, weights.shape
        self._blocks = _pack_blocks(weights)
        self._multiply = torch.ops._C.weight_packed_linear.default

    @staticmethod
    def can_pack(weights: torch.Tensor) -> bool:
        """Whether the kernel knows such weights, and is the faster one here."""
        return (
            weights.dtype == torch.bfloat16
            and not any(size % BLOCK for size in weights.shape)
            and hasattr(torch.ops._C, "weight_packed_linear")
            and torch.cpu._is_avx512_bf16_supported()
            and not torch.cpu._is_amx_tile_supported()
        )

    def __call__(self, x: torch.Tensor, _: object = None, bias: torch.Tensor | None = None) -> torch.Tensor:
        """The product of x (..., in)."""
        more = self._blocks.shape[1] // BLOCK - self._in
        rows = x if x.dim() == 2 else x.reshape(-1, self._in)
        return self._compute(pad(rows, (0, more)) if more else rows, bias).view(*x.shape[:-1], self._out)

    def with_adapter(self, a: torch.Tensor, b: torch.Tensor) -> Linear:
        """The product to which that with A (rank, in) and then B (out, rank) is added. It replaces an earlier one."""
        unused = -len(a) % BLOCK
        rank = len(a) + unused
        packed_a = torch.ops._C.convert_weight_packed(pad(a, (0, 0, 0, unused)))
        blocks_b = _pack_blocks(pad(b, (0, unused)))
        own = self._in * BLOCK
        if self._blocks.shape[1] == own + blocks_b.shape[1]:
            self._blocks[:, own:] = blocks_b
        else:
            self._blocks = torch.cat([self._blocks[:, :own], blocks_b], dim=1)

        def add(x: torch.Tensor, _: object = None, bias: torch.Tensor | None = None) -> torch.Tensor:
            rows = x if x.dim() == 2 else x.reshape(-1, self._in)
            inputs, copied, times_a = self._inputs[rows.size(0), self._in, rank]
            copied.copy_(rows)
            self._multiply(times_a, rows, packed_a, None, True)
            y = self._compute(inputs, bias)
            return y if x.dim() == 2 else y.view(*x.shape[:-1], self._out)

        return add

    def _compute(self, inputs: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        y = torch.empty((inputs.size(0), self._out), dtype=inputs.dtype)
        self._multiply(y, inputs, self._blocks.view(self._out, -1), None if bias is None else bias.float(), True)
        return y


class WidenedRows(dict[tuple[int, int, int], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]):
    """Memory for rows and their products with A, by (rows, in, rank): together, and both parts of it."""

    def __missing__(self, size: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rows, width, rank = size
        both = torch.empty((rows, width + rank), dtype=torch.bfloat16)
        parts = both, both[:, :width], both[:, width:]
        if rows <= KEPT_ROWS:
            self[size] = parts
        return parts


def _pack_blocks(weights: torch.Tensor) -> torch.Tensor:
    """Weights (out, in) as blocks (out / BLOCK, in * BLOCK), in which those of an input are together."""
    packed: torch.Tensor = torch.ops._C.convert_weight_packed(weights.contiguous())
    return packed.view(len(weights) // BLOCK, -1)
