"""vLLM's kernels for a CPU, called without what lies between them and the modules of its model.

A small base spends a third of a step between kernels: in choices between devices and quantizations, which are the same for every step.
"""

from collections.abc import Sequence
from typing import Any

import torch
from vllm.forward_context import get_forward_context
from vllm.model_executor.layers.activation import SiluAndMul
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.rotary_embedding import RotaryEmbedding
from vllm.v1.attention.backend import AttentionType

# Keys and values have the model's type, without a scale.
PLAIN, SCALE = "auto", 1.0


def call_kernels(model: Any) -> None:
    """Let those modules of a loaded model that can call their kernels do so."""
    for parent in model.modules():
        for name, module in parent.named_children():
            if kind := next((kind for kind in KINDS if kind.can_replace(module)), None):
                # Not in the place of the module, but before it: an attribute of the object is found first, and calls no hooks.
                parent.__dict__[name] = module.forward = kind(module)


class DirectModule:
    """A module's forward pass. Other attributes are the module's own."""

    def __init__(self, module: Any) -> None:
        self._module = module

    @staticmethod
    def can_replace(module: Any) -> bool:
        """Whether it is a module of this kind, in a form that the kernels know."""
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


class DirectLinear(DirectModule):
    """The forward pass of a linear layer without a bias."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        self._multiply, self._weight, self._returns_bias = layer.cpu_linear, layer.weight, layer.return_bias

    @staticmethod
    def can_replace(module: Any) -> bool:
        return (
            hasattr(module, "cpu_linear") and getattr(module, "bias", None) is None and hasattr(module, "return_bias")
        )

    def __call__(self, x: torch.Tensor) -> Any:
        """The product, with the absent bias if vLLM's layer returns it."""
        y = self._multiply(x, self._weight, None)
        return (y, None) if self._returns_bias else y


class DirectNorm(DirectModule):
    """The forward pass of RMSNorm. vLLM declares its kernels for GPUs only; on a CPU they read no strides, and norms of heads have some."""

    def __init__(self, norm: RMSNorm) -> None:
        super().__init__(norm)
        self._native, self._weight, self._epsilon = norm.forward_native, norm.weight.data, norm.variance_epsilon
        self._plain, self._added = torch.ops._C.rms_norm.default, torch.ops._C.fused_add_rms_norm.default

    @staticmethod
    def can_replace(module: Any) -> bool:
        return type(module) is RMSNorm and module.has_weight and module.variance_size_override is None

    def __call__(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
        """The norm, or the norm of the sum and the sum, which overwrite their inputs."""
        if not x.is_contiguous() or x.dtype != self._weight.dtype:
            return self._native(x, residual)
        if residual is None:
            y = torch.empty_like(x)
            self._plain(y, x, self._weight, self._epsilon)
            return y
        self._added(x, residual, self._weight, self._epsilon)
        return x, residual


class DirectPositions(DirectModule):
    """The rotation of queries and keys by their positions."""

    def __init__(self, rotation: RotaryEmbedding) -> None:
        super().__init__(rotation)
        self._rotate, self._angles = torch.ops._C.rotary_embedding.default, rotation._match_cos_sin_cache_dtype
        self._size, self._halves = rotation.head_size, rotation.is_neox_style

    @staticmethod
    def can_replace(module: Any) -> bool:
        # Kinds differ in their angles only, or in this method.
        return getattr(type(module), "forward_cpu", None) is RotaryEmbedding.forward_cpu

    def __call__(self, positions: torch.Tensor, query: torch.Tensor, key: torch.Tensor | None = None) -> Any:
        """Both, rotated in their place."""
        self._rotate(positions, query, key, self._size, self._angles(query), self._halves)
        return query, key


class DirectGate(DirectModule):
    """The gate of SwiGLU (Shazeer 2020): silu of the first half of a row, times its second half."""

    @staticmethod
    def can_replace(module: Any) -> bool:
        return type(module) is SiluAndMul

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The gated rows, half as wide."""
        gate, up = x.chunk(2, dim=-1)
        return torch.nn.functional.silu(gate).mul_(up)


class DirectAttention(DirectModule):
    """The forward pass of a decoder's attention that has its own keys and values."""

    def __init__(self, attention: Attention) -> None:
        super().__init__(attention)
        self._attention, self._native = attention, attention.forward
        self._store = torch.ops._C.cpu_attn_reshape_and_cache.default
        self._attend = torch.ops._C.cpu_attention_with_kv_cache.default
        self._halves: tuple[torch.Tensor, torch.Tensor] | None = None

    @staticmethod
    def can_replace(module: Any) -> bool:
        return (
            type(module) is Attention
            and module.attn_type == AttentionType.DECODER
            and module.kv_sharing_target_layer_name is None
            and module.kv_cache_dtype == PLAIN
            and module.impl.sinks is None
            and module.head_size == module.head_size_v
        )

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *rest: Any, **named: Any) -> Any:
        """Store keys and values (rows, heads * size), and attend with the queries."""
        attention, context, rows = self._attention, get_forward_context(), query.size(0)
        if rest or named or context.attn_metadata is None:
            return self._native(query, key, value, *rest, **named)
        layout, implementation = context.attn_metadata[attention.layer_name], attention.impl
        keys, values = self._halves or self._split()
        stored = (rows, attention.num_kv_heads, attention.head_size)
        slots = context.slot_mapping[attention.layer_name]
        self._store(key.view(stored), value.view(stored), keys, values, slots, attention.isa, SCALE, SCALE, PLAIN)
        asking = (rows, attention.num_heads, attention.head_size)
        output = torch.empty((rows, attention.num_heads * attention.head_size), dtype=query.dtype)
        self._attend(
            query.view(asking),
            keys,
            values,
            output.view(asking),
            layout.query_start_loc,
            layout.seq_lens,
            implementation.scale,
            layout.causal,
            implementation.alibi_slopes,
            implementation.sliding_window,
            layout.block_table,
            implementation.logits_soft_cap,
            layout.scheduler_metadata,
            None,
            layout.dynamic_causal,
            SCALE,
            SCALE,
            PLAIN,
        )
        return output

    def _split(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The cache's keys and values, each (blocks, heads, tokens, size)."""
        cache = self._attention.kv_cache
        blocks, heads, tokens, _ = cache.size()
        self._halves = cache.view(blocks, heads, tokens * 2, -1).chunk(2, dim=2)
        return self._halves


KINDS: Sequence[type[DirectModule]] = (DirectLinear, DirectNorm, DirectPositions, DirectGate, DirectAttention)
