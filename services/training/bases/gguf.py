"""Converts a GGUF file to a base: bf16 safetensors, configuration and tokenizer.

Of a Llama-like file the result equals `from_pretrained(gguf_file=...)` in bf16 bit for bit, without building a model. Others are read so.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.training.bases.quantised import save_plain
from tailor.errors import InvalidArgument, Reason

ARCHITECTURE = "llama"
CONTROL_TOKEN = 3  # GGUF's token type of special tokens
# Names of a layer's tensors: GGUF's, then transformers'.
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTER_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


@dataclass(frozen=True)
class GgufHeader:
    """The metadata of a GGUF file. `tied` means that input and output embeddings are the same tensor."""

    fields: dict[str, Any]
    tied: bool

    def model(self, name: str) -> Any:
        """A field of the architecture."""
        return self.fields[f"{ARCHITECTURE}.{name}"]

    def token(self, name: str) -> Any:
        """A field of the tokenizer; None if the file does not have it."""
        return self.fields.get(f"tokenizer.ggml.{name}")


def convert(source: Path, target: Path) -> str:
    """Write `model.safetensors` (bf16), `config.json`, `generation_config.json`, `tokenizer.json` and `tokenizer_config.json`.

    Returns the licence. Raises InvalidArgument (UNSUPPORTED_GGUF) for an architecture or a tokenizer that transformers does not read.
    """
    from gguf import GGUFReader

    reader = GGUFReader(source)
    header = GgufHeader(
        {name: field.contents() for name, field in reader.fields.items()},
        tied=all(tensor.name != "output.weight" for tensor in reader.tensors),
    )
    licence = str(header.fields.get("general.license") or "unknown")
    if header.fields.get("general.architecture") != ARCHITECTURE or header.token("model") != "gpt2":
        _convert_by_transformers(source, target)
        return licence
    _write_json(target / "config.json", _config(header))
    _write_json(
        target / "generation_config.json",
        {"bos_token_id": header.token("bos_token_id"), "eos_token_id": header.token("eos_token_id")},
    )
    _write_tokenizer(header, target)
    _write_weights(reader.tensors, header, target / "model.safetensors")
    return licence


def _convert_by_transformers(source: Path, target: Path) -> None:
    """Build the model and its tokenizer as transformers reads them. Needs memory for the weights in f32 and in bf16."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source.parent, gguf_file=source.name, local_files_only=True, trust_remote_code=False
        )
        model = AutoModelForCausalLM.from_pretrained(
            source.parent,
            gguf_file=source.name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(gguf_file=source.name, dequantize=True),
            local_files_only=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError, KeyError, TypeError, NotImplementedError) as error:
        raise InvalidArgument(
            Reason.UNSUPPORTED_GGUF,
            f"transformers does not read this GGUF file ({type(error).__name__}). Add the model as safetensors.",
        ) from None
    save_plain(model, target)
    tokenizer.save_pretrained(target)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _config(header: GgufHeader) -> dict[str, Any]:
    heads = int(header.model("attention.head_count"))
    width = int(header.model("embedding_length"))
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": header.token("bos_token_id"),
        "eos_token_id": header.token("eos_token_id"),
        "pad_token_id": header.token("padding_token_id"),
        "head_dim": width // heads,
        "hidden_act": "silu",
        "hidden_size": width,
        "initializer_range": 0.02,
        "intermediate_size": int(header.model("feed_forward_length")),
        "max_position_embeddings": int(header.model("context_length")),
        "mlp_bias": False,
        "num_attention_heads": heads,
        "num_hidden_layers": int(header.model("block_count")),
        "num_key_value_heads": int(header.model("attention.head_count_kv")),
        "rms_norm_eps": float(f"{header.model('attention.layer_norm_rms_epsilon'):.6g}"),
        "rope_theta": float(header.model("rope.freq_base")),
        "tie_word_embeddings": header.tied,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": len(header.token("tokens")),
    }


def _write_tokenizer(header: GgufHeader, target: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens: list[str] = header.token("tokens")
    merges = [tuple(merge.split(" ", 1)) for merge in header.token("merges")]
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(_pre_tokenizers(header.token("pre")))
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, header.token("token_type"), strict=True) if kind == CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.save(str(target / "tokenizer.json"))
    _write_json(
        target / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": tokens[header.token("bos_token_id")],
            "eos_token": tokens[header.token("eos_token_id")],
            "pad_token": tokens[header.token("padding_token_id")],
            "unk_token": tokens[header.token("unknown_token_id")],
            "chat_template": header.fields.get("tokenizer.chat_template"),
            "clean_up_tokenization_spaces": False,
            "model_max_length": int(header.model("context_length")),
        },
    )


def _pre_tokenizers(name: str) -> list[Any]:
    from tokenizers import pre_tokenizers

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True)
    if name == "smollm":
        return [pre_tokenizers.Digits(individual_digits=True), byte_level]
    if name in {"gpt-2", "default"}:
        return [byte_level]
    raise InvalidArgument(
        Reason.UNSUPPORTED_GGUF, f"The pre-tokenizer {name!r} is not supported. Add the base as safetensors."
    )


def _write_weights(tensors: list[Any], header: GgufHeader, path: Path) -> None:
    from safetensors.torch import save_file

    save_file(dict(_tensors(tensors, header)), path, metadata={"format": "pt"})


def _tensors(tensors: list[Any], header: GgufHeader) -> Iterator[tuple[str, Any]]:
    import torch
    from gguf import dequantize

    for tensor in tensors:
        values = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        kind = tensor.name.split(".")[2] if tensor.name.startswith("blk.") else ""
        if kind in {"attn_q", "attn_k"}:
            heads = header.model("attention.head_count" if kind == "attn_q" else "attention.head_count_kv")
            values = _undo_rope_order(values, int(heads))
        yield _name(tensor.name), values.to(torch.bfloat16).contiguous()


def _undo_rope_order(values: Any, heads: int) -> Any:
    """Reorder (heads * head_dim, ...) from llama.cpp's interleaved rotary pairs to transformers' two halves."""
    return (
        values.reshape(heads, values.shape[0] // heads // 2, 2, *values.shape[1:]).swapaxes(2, 1).reshape(values.shape)
    )


def _name(name: str) -> str:
    if name in OUTER_NAMES:
        return OUTER_NAMES[name]
    _, layer, kind, part = name.split(".")
    if kind not in LAYER_NAMES:
        raise InvalidArgument(
            Reason.UNSUPPORTED_GGUF,
            f"The tensor {name!r} is not one of a Llama-like model. Add the base as safetensors.",
        )
    return f"model.layers.{layer}.{LAYER_NAMES[kind]}.{part}"
