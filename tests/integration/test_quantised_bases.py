"""Checkpoints that are published in FP8, MXFP4 or INT8 are added in bf16, with the numbers that they stand for."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.training.bases import tiny
from services.training.bases.store import StoredBases, fetch_here
from services.training.domain import Base
from tailor.storage.buckets import MODELS
from tests.models import make_tiny_base
from tests.unit.training.stores import FileStore

pytestmark = pytest.mark.integration

VOCABULARY = 512
INT8 = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True, "dynamic": False},
            "input_activations": {
                "num_bits": 8,
                "type": "int",
                "strategy": "token",
                "symmetric": True,
                "dynamic": True,
            },
        }
    },
}
FP8 = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
MXFP4 = {
    "quant_method": "mxfp4",
    "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "lm_head"],
}


def save(folder: Path, family: str, quantisation: dict[str, Any]) -> dict[str, Any]:
    """Save a tiny base in bf16 with a configuration that says that it is quantised, and return its tensors."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForCausalLM

    make_tiny_base(folder, ["the house style of a report"] * 4, vocabulary=320)
    config = tiny.shrink(AutoConfig.for_model(family))
    config.vocab_size = VOCABULARY
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="eager").save_pretrained(folder)
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**described, "quantization_config": quantisation}))
    return dict(load_file(folder / "model.safetensors"))


def add(folder: Path, tmp_path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Add the base; its manifest and its stored tensors."""
    from safetensors.torch import load

    store = FileStore(tmp_path / "store")
    *_, base = StoredBases(store, tmp_path / "scratch", fetch=fetch_here).add("plain", f"path:{folder}")
    assert isinstance(base, Base)
    manifest = json.loads(store.get(base.manifest))
    files = [file for file in manifest["files"] if file["path"].endswith(".safetensors")]
    config = next(file for file in manifest["files"] if file["path"] == "config.json")
    assert "quantization_config" not in json.loads(store.read(MODELS, config["key"]))
    return manifest, {name: tensor for file in files for name, tensor in load(store.read(MODELS, file["key"])).items()}


@pytest.mark.parametrize("quantisation", [INT8, FP8], ids=["int8", "fp8"])
def test_quantised_layers_are_what_they_stand_for(quantisation: dict[str, Any], tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = save(tmp_path / "base", "llama", quantisation)
    expected, stored = {}, {}
    for name, tensor in tensors.items():
        if not name.endswith("proj.weight"):
            expected[name] = stored[name] = tensor
            continue
        if quantisation is INT8:
            scale = tensor.float().abs().amax(dim=1, keepdim=True) / 127
            stored[name] = (tensor.float() / scale).round().to(torch.int8)
            stored[f"{name}_scale"] = scale
        else:
            scale = tensor.float().abs().max().reshape(1, 1) / 448
            stored[name] = (tensor.float() / scale).to(torch.float8_e4m3fn)
            stored[f"{name}_scale_inv"] = scale
        expected[name] = (stored[name].float() * scale).bfloat16()
    save_file(stored, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    manifest, found = add(tmp_path / "base", tmp_path)
    assert manifest["quantisation"] == quantisation["quant_method"]
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == torch.bfloat16
        torch.testing.assert_close(found[name], tensor, rtol=0.01, atol=1e-6)


def test_experts_in_mxfp4_are_what_they_stand_for(tmp_path: Path) -> None:
    """Blocks of 32 four-bit floats with one power of two (OCP Microscaling Formats 1.0): a byte 0x22 is twice 1.0."""
    import torch
    from safetensors.torch import save_file

    tensors = save(tmp_path / "base", "gpt_oss", MXFP4)
    stored = {}
    for name, tensor in tensors.items():
        if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            stored[name] = tensor
            continue
        experts, inputs, outputs = tensor.shape
        stored[f"{name}_blocks"] = torch.full((experts, outputs, inputs // 32, 16), 0x22, dtype=torch.uint8)
        stored[f"{name}_scales"] = torch.full((experts, outputs, inputs // 32), 126, dtype=torch.uint8)
    save_file(stored, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    _, found = add(tmp_path / "base", tmp_path)
    assert found.keys() == tensors.keys()
    experts = [tensor for name, tensor in found.items() if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]
    assert experts and all((tensor == 0.5).all() for tensor in experts)
