"""Fast, exact attention on packed rows.

A dense mask would compute every pair of a micro-batch's tokens; here each row attends to itself only, by the rule of its layer: causal,
within a window, or within chunks.
"""

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from itertools import pairwise
from typing import Any

SEGMENTED = "segmented"

# The positions (1, tokens) of the micro-batch that a model reads. Some models do not hand them on to their masks.
_positions: ContextVar[Any] = ContextVar("positions", default=None)


def register_attention() -> None:
    """Register `attn_implementation="segmented"` with transformers. Idempotent."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(SEGMENTED, segmented_attention)
    AttentionMaskInterface.register(SEGMENTED, make_row_mask)


def separate_rows(model: Any) -> Any:
    """Have a model's segmented attention see where rows start, whether or not its code hands positions on. Returns the model."""

    def remember(_: Any, __: Any, options: dict[str, Any]) -> None:
        _positions.set(options.get("position_ids"))

    def forget(*_: Any) -> None:
        _positions.set(None)

    model.register_forward_pre_hook(remember, with_kwargs=True)
    model.register_forward_hook(forget, always_call=True)
    return model


class RowMask:
    """The tokens that each token of a micro-batch may attend to.

    `rows` are (start, end, mask), with (tokens, tokens) masks that are True for the pairs that are computed; None if a row is causal
    without further limits.
    """

    def __init__(self, rule: Callable[..., Any], tokens: int, device: Any) -> None:
        self._rule = rule
        self._device = device
        self.rows = [(start, end, self._mask(start, end)) for start, end in pairwise(self._borders(tokens))]

    def _borders(self, tokens: int) -> list[int]:
        """Where a token does not see the one before it: at the start of a row, or of a chunk."""
        import torch

        after_first = torch.arange(1, tokens, device=self._device)
        starts = ~self._sees(after_first, after_first - 1)
        positions = _positions.get()
        if positions is not None and positions.shape == (1, tokens):
            starts |= positions[0, 1:] == 0
        return [0, *after_first[starts].tolist(), tokens]

    def _mask(self, start: int, end: int) -> Any:
        import torch

        places = torch.arange(start, end, device=self._device)
        # Windows and chunks are contiguous: if the last token sees the first one, nothing is hidden but what follows.
        return None if bool(self._sees(places[-1:], places[:1])) else self._sees(places[:, None], places)

    def _sees(self, queries: Any, keys: Any) -> Any:
        import torch

        first = torch.zeros((), dtype=torch.long, device=self._device)
        return self._rule(first, first, queries, keys).expand(torch.broadcast_shapes(queries.shape, keys.shape))


def make_row_mask(
    *,
    q_length: int,
    kv_length: int,
    mask_function: Callable[..., Any],
    device: Any,
    attention_mask: Any = None,
    use_vmap: bool = False,
    **_: Any,
) -> RowMask:
    """The mask of a forward pass without a cache, over packed rows or over rows that are padded on the right.

    Raises ValueError for what it would compute wrongly: a cache, padding on the left, a rule that is not one of positions.
    """
    if q_length != kv_length or use_vmap or not (attention_mask is None or bool(attention_mask[:, 0].all())):
        raise ValueError("segmented attention takes no cache, no padding on the left, and no mask that a model makes")
    return RowMask(mask_function, q_length, device)


def segmented_attention(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **options: Any
) -> tuple[Any, None]:
    """Attention within each row of a packed sequence, by a `RowMask`. Not for generation with a cache.

    `query` is (rows, heads, tokens, head_dim), `key` and `value` (rows, key heads, tokens, head_dim), the result (rows, tokens, heads,
    head_dim). Raises TypeError if the model made the mask itself.
    """
    import torch

    if not isinstance(attention_mask, RowMask):
        raise TypeError("segmented attention needs the mask that transformers asks `make_row_mask` for")
    attend = _attend_softly if options.get("softcap") or options.get("s_aux") is not None else _attend
    parts = [
        attend(module, [states[:, :, start:end] for states in (query, key, value)], mask, options)
        for start, end, mask in attention_mask.rows
    ]
    return torch.cat(parts, dim=1), None


def _attend(module: Any, states: Sequence[Any], mask: Any, options: Mapping[str, Any]) -> Any:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    known = {name: options[name] for name in ("dropout", "scaling") if name in options}
    return sdpa_attention_forward(module, *states, mask, is_causal=mask is None, **known)[0]


def _attend_softly(module: Any, states: Sequence[Any], mask: Any, options: Mapping[str, Any]) -> Any:
    """Attention with soft-capped scores (Gemma 2, arXiv:2408.00118) or sinks (gpt-oss), which torch's own function does not have."""
    import torch
    from transformers.integrations.sdpa_attention import repeat_kv

    query, key, value = states
    groups = query.shape[1] // key.shape[1]
    scores = query @ repeat_kv(key, groups).transpose(2, 3) * options.get("scaling", query.shape[-1] ** -0.5)
    if cap := options.get("softcap"):
        scores = cap * torch.tanh(scores / cap)
    if mask is None:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    scores = scores.masked_fill(~mask, float("-inf"))
    if (sinks := options.get("s_aux")) is not None:
        scores = torch.cat([scores, sinks.reshape(1, -1, 1, 1).expand(*scores.shape[:3], 1)], dim=-1)
    shares = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)[..., : key.shape[2]]
    shares = torch.nn.functional.dropout(shares, options.get("dropout", 0.0), training=module.training)
    return (shares @ repeat_kv(value, groups)).transpose(1, 2).contiguous()
