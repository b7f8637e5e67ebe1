"""Models that also read images are added as their text part, which answers as the whole model does."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.training.bases import tiny
from services.training.bases.store import StoredBases, fetch_here
from services.training.bases.text_tower import to_text_name
from services.training.domain import Base
from tailor.errors import InvalidArgument
from tailor.storage.buckets import MODELS
from tests.models import make_tiny_base
from tests.unit.training.stores import FileStore

pytestmark = pytest.mark.integration

VOCABULARY = 512


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_tiny_base(tmp_path_factory.mktemp("tokenizer"), ["the house style of a report"] * 4, vocabulary=320)
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    return folder


def make_whole(folder: Path, tokenizer: Path, family: str) -> Any:
    """Save a tiny whole model in shards, with its tokenizer, as a hub would serve it, and return it."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    described = tiny.shrink(AutoConfig.for_model(family)).to_dict()
    described["text_config"]["vocab_size"] = VOCABULARY
    if described.get("vision_config"):
        sizes = {"num_hidden_layers": 2, "depth": 2, "hidden_size": 64, "intermediate_size": 128}
        described["vision_config"] |= {name: size for name, size in sizes.items() if name in described["vision_config"]}
        described["vision_config"] |= (
            {"num_attention_heads": 4} if "num_attention_heads" in described["vision_config"] else {}
        )
    config = type(AutoConfig.for_model(family)).from_dict(described)
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config, attn_implementation="eager", dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="300KB")
    for file in tokenizer.iterdir():
        if file.name not in ("config.json", "generation_config.json"):
            (folder / file.name).write_bytes(file.read_bytes())
    return model.float().eval()


@pytest.mark.parametrize(
    "family", ["gemma3", "gemma4", "qwen3_5", "qwen3_5_moe", "mistral3", "lfm2_vl", "internvl", "llava"]
)
def test_the_text_part_answers_as_the_whole_model(family: str, tokenizer: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    whole = make_whole(tmp_path / "whole", tokenizer, family)
    store = FileStore(tmp_path / "store")
    *steps, base = StoredBases(store, tmp_path / "scratch", fetch=fetch_here).add("text", f"path:{tmp_path / 'whole'}")
    assert isinstance(base, Base)
    for file in json.loads(store.get(base.manifest))["files"]:
        (tmp_path / file["path"]).write_bytes(store.read(MODELS, file["key"]))
    tokens = torch.arange(5, 60)[None]
    with torch.no_grad():
        text = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager")
        expected, logits = whole(input_ids=tokens).logits, text(input_ids=tokens).logits
    assert (logits - expected).abs().max() <= 1e-4 * expected.std()
    others = sum(weights.numel() for name, weights in whole.state_dict().items() if not to_text_name(name))
    assert others == 0 or any("parameters that read no text" in str(step) for step in steps)


def test_a_text_part_without_a_causal_class_is_refused(tokenizer: Path, tmp_path: Path) -> None:
    make_whole(tmp_path / "whole", tokenizer, "qwen3_vl")
    with pytest.raises(InvalidArgument, match="no causal class for the text part of qwen3_vl"):
        list(
            StoredBases(FileStore(tmp_path / "store"), tmp_path / "scratch", fetch=fetch_here).add(
                "text", f"path:{tmp_path / 'whole'}"
            )
        )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("language_model.model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        ("model.language_model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        ("language_model.lm_head.weight", "lm_head.weight"),
        ("lm_head.weight", "lm_head.weight"),
        ("model.text_model.norm.weight", "model.norm.weight"),
        ("model.visual.blocks.0.norm.weight", ""),
        ("mtp.layers.0.norm.weight", ""),
    ],
)
def test_names_as_models_are_published_and_as_transformers_saves_them(name: str, text: str) -> None:
    assert to_text_name(name) == text
