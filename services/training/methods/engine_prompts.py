"""Several answers to one prompt: vLLM's forward pass on a CPU, which reads what several rows have in common once.

vLLM itself shares whole blocks of keys and values. What follows the last whole block, so all of a short prompt, it reads for every answer.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from vllm import _custom_ops as custom_ops
from vllm import envs
from vllm.forward_context import get_forward_context
from vllm.v1.attention.backends.cpu_attn import CPUAttentionMetadata

from services.training.methods.engine_rows import Row, find_repeats

Layouts = Mapping[str, CPUAttentionMetadata]


class SharedReading:
    """The forward pass of a model runner."""

    def __init__(self, runner: Any) -> None:
        self._runner, self._forward = runner, runner._model_forward

    def __call__(self, input_ids: Any = None, positions: Any = None, *rest: Any, **named: Any) -> Any:
        """Hidden states (tokens, width) of a step's tokens. A repeated row gets those of its source, and its keys and values."""
        context = get_forward_context()
        layouts: Layouts = context.attn_metadata or {}
        rows = (
            list(_read_rows(input_ids, layouts, context.no_compile_layers))
            if self._can_share(positions, layouts)
            else []
        )
        repeats = find_repeats(rows)
        if not repeats:
            return self._forward(input_ids, positions, *rest, **named)
        kept = [number for number in range(len(rows)) if number not in repeats]
        tokens = torch.cat([torch.arange(rows[number].first, rows[number].end) for number in kept])
        context.attn_metadata = self._select(layouts, kept, tokens)
        context.slot_mapping = {name: slots[tokens] for name, slots in context.slot_mapping.items()}
        hidden = self._forward(input_ids[tokens], positions[tokens], *rest, **named)
        _copy_blocks(rows, repeats, layouts, context.no_compile_layers)
        return hidden[_find_places(rows, repeats, tokens)]

    def _can_share(self, positions: Any, layouts: Layouts) -> bool:
        """Whether some row reads its prompt, in a form that is known here."""
        answering = self._runner.num_decode_draft_tokens.np[: self._runner.input_batch.num_reqs] >= 0
        return (
            bool(layouts)
            and positions.dim() == 1
            and not answering.all()
            and all(
                isinstance(layout, CPUAttentionMetadata)
                and layout.dynamic_causal is None
                and layout.encoder_cache is None
                for layout in layouts.values()
            )
        )

    def _select(self, layouts: Layouts, kept: Sequence[int], tokens: torch.Tensor) -> Layouts:
        """The layouts of some rows."""
        builders = {
            name: group.get_metadata_builder()
            for groups in self._runner.attn_groups
            for group in groups
            for name in group.layer_names
        }
        # Layers of one kind share a layout.
        selected: dict[int, CPUAttentionMetadata] = {}
        for name, layout in layouts.items():
            if id(layout) not in selected:
                selected[id(layout)] = _select_rows(layout, kept, tokens, builders[name])
        return {name: selected[id(layout)] for name, layout in layouts.items()}


def _read_rows(input_ids: torch.Tensor, layouts: Layouts, layers: Mapping[str, Any]) -> Iterator[Row]:
    ids = input_ids.tolist()
    # For each kind of layers: the blocks of each row, and the tokens in a block.
    kinds = {
        id(layout): (layout.block_table.tolist(), layers[name].kv_cache.size(2)) for name, layout in layouts.items()
    }
    layout = next(iter(layouts.values()))
    starts, lengths = layout.query_start_loc.tolist(), layout.seq_lens.tolist()
    for number, length in enumerate(lengths):
        first, end = starts[number : number + 2]
        before = length - (end - first)
        blocks, written = [], []
        for table, size in kinds.values():
            blocks += table[number][: -(-before // size)]
            written += table[number][before // size : -(-length // size)]
        yield Row(first, tuple(ids[first:end]), before, tuple(blocks), tuple(written))


def _select_rows(
    layout: CPUAttentionMetadata, kept: Sequence[int], tokens: torch.Tensor, builder: Any
) -> CPUAttentionMetadata:
    """The layout of some rows, as vLLM would have made it for them."""
    read = layout.query_start_loc.diff()[kept]
    starts = torch.nn.functional.pad(read.cumsum(0), (1, 0)).to(layout.query_start_loc.dtype)
    lengths = layout.seq_lens[kept]
    return replace(
        layout,
        num_actual_tokens=len(tokens),
        max_query_len=int(read.max()),
        query_start_loc=starts,
        max_seq_len=int(lengths.max()),
        seq_lens=lengths,
        block_table=layout.block_table[kept],
        slot_mapping=layout.slot_mapping[tokens],
        scheduler_metadata=custom_ops.cpu_attn_get_scheduler_metadata(
            num_reqs=len(kept),
            num_heads=builder.num_heads,
            num_kv_heads=builder.num_kv_heads,
            head_dim=builder.head_dim,
            seq_lens=lengths,
            dtype=builder.dtype,
            query_start_loc=starts,
            causal=layout.causal,
            sliding_window_size=builder.window_size,
            isa=builder.isa,
            enable_kv_split=envs.VLLM_CPU_ATTN_SPLIT_KV,
            kv_cache_dtype=builder.kv_cache_dtype,
        ),
    )


def _copy_blocks(rows: Sequence[Row], repeats: Mapping[int, int], layouts: Layouts, layers: Mapping[str, Any]) -> None:
    """Give repeated rows their keys and values, in each layer's cache (blocks, heads, tokens, size)."""
    copies: dict[int, torch.Tensor] = {}
    for name, layout in layouts.items():
        cache = layers[name].kv_cache
        if id(layout) not in copies:
            copies[id(layout)] = _find_blocks(rows, repeats, layout.block_table, cache.size(2))
        sources, targets = copies[id(layout)]
        cache[targets] = cache[sources]


def _find_blocks(
    rows: Sequence[Row], repeats: Mapping[int, int], table: torch.Tensor, block_tokens: int
) -> torch.Tensor:
    """The blocks (2, blocks) that repeated rows copy: those of their sources, and their own."""
    pairs = []
    for number, source in repeats.items():
        before, after = rows[number].before, rows[number].before + len(rows[number].tokens)
        pairs.append(table[[source, number], before // block_tokens : -(-after // block_tokens)])
    return torch.cat(pairs, dim=1)


def _find_places(rows: Sequence[Row], repeats: Mapping[int, int], tokens: torch.Tensor) -> torch.Tensor:
    """For each token of the step (all tokens,), the place of its hidden state among those of `tokens`."""
    places = torch.empty(sum(len(row.tokens) for row in rows), dtype=torch.long)
    places[tokens] = torch.arange(len(tokens))
    for number, source in repeats.items():
        places[rows[number].first : rows[number].end] = places[rows[source].first : rows[source].end].clone()
    return places
