"""A tiny model of a base's own configuration: the same code, kinds of layers and rules of attention, with random weights of a few MB.

What is learned about it in a second, such as whether packed rows are computed like single ones, holds for the base.
"""

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from services.training.bases.attention import separate_rows
from tailor.errors import InvalidArgument, Reason

# Sizes in configurations of transformers, by what they count. A size that a configuration does not have, or that is smaller, stays.
SIZES = {
    64: "hidden_size n_embd d_model dim block_dim conv_dim word_embed_proj_dim embedding_size shared_intermediate_size lru_width",
    128: """intermediate_size block_ff_dim ffn_dim n_inner d_ff ffn_hidden_size dense_intermediate_size intermediate_size_mlp
        decoder_ffn_dim d_inner
        mamba_d_ssm""",
    32: """moe_intermediate_size shared_expert_intermediate_size moe_shared_expert_intermediate_size expert_ffn_hidden_size q_lora_rank
        qk_head_dim index_head_dim""",
    16: """head_dim global_head_dim kv_channels attention_head_dim swa_head_dim v_head_dim swa_v_head_dim attention_value_dim kv_lora_rank
        o_lora_rank qk_nope_head_dim qk_rope_head_dim rotary_dim hidden_size_per_layer_input linear_key_head_dim linear_value_head_dim
        mamba_d_head mamba_head_dim mamba_d_state ssm_state_size state_size sliding_window attention_window window_size
        attention_chunk_size local_attention_window local_attention""",
    4: """num_attention_heads n_head num_heads n_heads attention_heads swa_num_attention_heads linear_num_value_heads num_experts
        num_local_experts n_routed_experts moe_num_experts""",
    2: """num_key_value_heads num_global_key_value_heads multi_query_group_num swa_num_key_value_heads num_kv_heads linear_num_key_heads
        index_n_heads num_experts_per_tok moe_topk moe_k num_experts_per_token top_k_experts""",
    1: """n_group topk_group n_shared_experts num_shared_experts moe_num_shared_experts mamba_n_groups n_groups first_k_dense_replace
        num_dense_layers""",
    512: "max_position_embeddings n_positions max_seq_len n_ctx index_topk",
    256: "vocab_size vocab_size_per_layer_input n_vocab",
}
WINDOW = 16  # also of windows with other names
LARGEST = {name: size for size, names in SIZES.items() for name in names.split()}
# Heads of state space layers, and their width: together they are as wide as the layer.
STATE_HEADS = (("mamba_n_heads", "mamba_d_head"), ("mamba_num_heads", "mamba_head_dim"))
LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers")
# The number of the last layers, which use keys and values of those before them.
SHARED = "num_kv_shared_layers"
TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id", "image_token_id")
TEXT = ("text_config", "llm_config")
# Half of the smallest head: rotary tables that a configuration lists entry by entry.
ROTARY = 8
MAX_PARAMETERS = 30_000_000


def shrink(config: Any) -> Any:
    """The configuration of a tiny model with one layer of each kind, at least two. Raises what transformers raises for it."""
    described = config.to_dict()
    kinds = _kinds_of(config.get_text_config())
    for name in TEXT:
        if isinstance(described.get(name), dict):
            described[name] = _shrink(described[name], kinds)
    described = _shrink(described, kinds)
    # The tiny model is what the weights of the base are when they are computed, not as they are stored.
    described.pop("quantization_config", None)
    return type(config).from_dict(described)


def _kinds_of(config: Any) -> Sequence[str]:
    """The kind of each layer, which some configurations only compute; empty if all are of one kind."""
    return getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None) or ()


def _shrink(described: dict[str, Any], kinds: Sequence[str]) -> dict[str, Any]:
    layers = next((described[name] for name in LAYERS if isinstance(described.get(name), int)), 0)
    chosen = _choose_layers(described, layers, kinds)
    small = {name: _smaller(name, value) for name, value in described.items()}
    small |= {name: len(chosen) for name in LAYERS if name in small}
    small |= {name: [small[name][layer] for layer in chosen] for name in _lists_of(described, layers)}
    if described.get(SHARED):
        small[SHARED] = sum(layer >= layers - described[SHARED] for layer in chosen)
    if isinstance(by_layer := described.get("per_layer_config"), dict):
        kept = {int(layer): sizes for layer, sizes in by_layer.items() if int(layer) in chosen}
        small["per_layer_config"] = {
            chosen.index(layer): {name: _smaller(name, value) for name, value in sizes.items()}
            for layer, sizes in kept.items()
        }
    if described.get("num_key_value_heads") == described.get("num_attention_heads") is not None:
        small["num_key_value_heads"] = small["num_attention_heads"]
    for heads, width in STATE_HEADS:
        if isinstance(small.get(width), int):
            small[heads] = LARGEST["mamba_d_ssm"] // small[width]
    for tables in (small.get("rope_parameters"), small.get("rope_scaling")):
        _cut_rotary(tables)
    return small


def _smaller(name: str, value: Any) -> Any:
    if name in TOKENS and value is not None:
        return min(value, 2) if isinstance(value, int) else 2
    if isinstance(value, list):
        return [_smaller(name, item) for item in value]
    largest = LARGEST.get(name, WINDOW if "window" in name else None)
    is_size = isinstance(value, int) and not isinstance(value, bool) and largest is not None
    return min(value, largest) if is_size else value


def _lists_of(described: Mapping[str, Any], layers: int) -> Iterator[str]:
    """The names of lists with one entry for each layer."""
    return (name for name, value in described.items() if isinstance(value, list) and layers and len(value) == layers)


def _choose_layers(described: Mapping[str, Any], layers: int, kinds: Sequence[str]) -> list[int]:
    """The first layer of each kind, by all that the configuration lists layer by layer; at least two layers.

    Where it lists nothing but computes kinds by the places of layers: the first layers, as far as all kinds are among them.
    """
    if kinds and len(kinds) == layers and not any(described[name] == [*kinds] for name in _lists_of(described, layers)):
        return [*range(max(2, 1 + max(map([*kinds].index, kinds))))]
    first: dict[str, int] = {}
    lists, own = sorted(_lists_of(described, layers)), layers - (described.get(SHARED) or 0)
    for layer in range(layers):
        listed = [described[name][layer] for name in lists]
        first.setdefault(json.dumps([layer < own, *listed], default=str), layer)
    others = [layer for layer in range(layers) if layer not in first.values()]
    return sorted([*first.values(), *others[: max(0, 2 - len(first))]])


def _cut_rotary(tables: Any) -> None:
    for table in [tables, *tables.values()] if isinstance(tables, dict) else []:
        if isinstance(table, dict):
            for name in ("long_factor", "short_factor"):
                if isinstance(table.get(name), list):
                    table[name] = table[name][:ROTARY]
            if isinstance(table.get("mrope_section"), list):
                table["mrope_section"] = [2, 3, 3]


def build(config: Any, attention: str, seed: int = 0) -> Any:
    """A tiny model in f32 with random weights, large enough for differences to show. Raises what transformers raises.

    Raises InvalidArgument (BASE_UNREADABLE) if the configuration could not be made small.
    """
    import torch
    from transformers import AutoModelForCausalLM

    options = {"attn_implementation": attention, "dtype": torch.float32, "trust_remote_code": False}
    with torch.device("meta"):
        parameters = sum(
            weights.numel()
            for weights in AutoModelForCausalLM.from_config(copy.deepcopy(config), **options).parameters()
        )
    if parameters > MAX_PARAMETERS:
        raise InvalidArgument(
            Reason.BASE_UNREADABLE,
            "No tiny model can be made of this configuration, so nothing can show that it would be trained rightly. Use another base.",
        )
    torch.manual_seed(seed)
    # A class that refuses an attention has already written it into its configuration.
    model = AutoModelForCausalLM.from_config(copy.deepcopy(config), **options).eval()
    generator = torch.Generator().manual_seed(seed)
    for weights in model.parameters():
        if weights.dim() > 1:
            weights.data.normal_(0.0, 2.0 / weights.shape[-1] ** 0.5, generator=generator)
    return separate_rows(model)
