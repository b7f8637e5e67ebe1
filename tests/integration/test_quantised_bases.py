"""Checkpoints that are published quantised are added in bf16, with the numbers that they stand for; those of 4 bits are served so too."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.inference.adapters.model_store import VerifiedLibrary, fetch_base
from services.training.bases import tiny
from services.training.bases.packed_weights import unpack_weights
from services.training.bases.quantised import is_served_as_published
from services.training.bases.store import StoredBases, fetch_here
from services.training.domain import Base
from tailor.errors import InvalidArgument
from tailor.hardware import computes_in_bf16
from tailor.storage.buckets import MODELS
from tests.integration.test_engine_support import SIZES, engine_of, needs_vllm, reference_score, train
from tests.integration.test_inference_engines import publish_adapter
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


AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}
GPTQ = {
    "quant_method": "gptq",
    "bits": 4,
    "group_size": 32,
    "sym": True,
    "desc_act": False,
    "checkpoint_format": "gptq",
}
PACKED = {
    **INT8,
    "format": "pack-quantized",
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True},
        }
    },
}
# The columns of eight in the order of AutoAWQ's `order_map`, the lowest bits first.
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def pack(values: Any, order: tuple[int, ...] = tuple(range(8))) -> Any:
    """Numbers below 16 as int32 of eight each, (rows, columns / 8)."""
    import torch

    eights = values.long().unflatten(-1, (-1, 8))
    packed = sum(eights[..., column] << (4 * place) for place, column in enumerate(order))
    return torch.where(packed >= 2**31, packed - 2**32, packed).to(torch.int32)


def pack_layer(weight: Any, quantisation: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """The tensors that stand for a layer's weights (outputs, inputs), and these weights after rounding."""
    import torch

    columns, size = weight.float().T, 32
    groups = columns.unflatten(0, (-1, size))
    symmetric = quantisation is not AWQ
    low, high = groups.amin(1), groups.amax(1)
    scales = (groups.abs().amax(1) / 7 if symmetric else (high - low) / 15).clamp(min=1e-5).half()
    zeros = torch.full_like(low, 8) if symmetric else (-low / scales.float()).round().clamp(0, 15)
    values = (groups / scales.float()[:, None] + zeros[:, None]).round().clamp(0, 15)
    plain = ((values - zeros[:, None]) * scales.float()[:, None]).flatten(0, 1).T.bfloat16()
    values = values.flatten(0, 1)
    if quantisation is AWQ:
        return {"qweight": pack(values, AWQ_ORDER), "qzeros": pack(zeros, AWQ_ORDER), "scales": scales}, plain
    if quantisation is PACKED:
        shape = torch.tensor(weight.shape)
        return {"weight_packed": pack(values.T), "weight_scale": scales.T.bfloat16(), "weight_shape": shape}, plain
    order = (torch.arange(len(values)) // size).to(torch.int32)
    return {"qweight": pack(values.T).T, "qzeros": pack(zeros - 1), "scales": scales, "g_idx": order}, plain


def save_packed(folder: Path, quantisation: dict[str, Any], **sizes: object) -> dict[str, Any]:
    """Save a tiny base whose linear layers are packed, in two files as large ones are, and return the tensors that it stands for."""
    from safetensors.torch import save_file

    plain: dict[str, Any] = {}
    stored: dict[str, Any] = {}
    for name, tensor in save(folder, "llama", quantisation, **sizes).items():
        if name.endswith("proj.weight"):
            parts, plain[name] = pack_layer(tensor, quantisation)
            stored |= {f"{name.removesuffix('weight')}{part}": value.contiguous() for part, value in parts.items()}
        else:
            plain[name] = stored[name] = tensor
    (folder / "model.safetensors").unlink()
    weight_map = {name: f"model-{1 + ('scale' in name)}.safetensors" for name in stored}
    for file in set(weight_map.values()):
        chosen = {name: tensor for name, tensor in stored.items() if weight_map[name] == file}
        save_file(chosen, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return plain


def save(folder: Path, family: str, quantisation: dict[str, Any], **sizes: object) -> dict[str, Any]:
    """Save a tiny base in bf16 with a configuration that says that it is quantised, and return its tensors."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForCausalLM

    make_tiny_base(folder, ["the house style of a report"] * 4, vocabulary=320)
    config = tiny.shrink(AutoConfig.for_model(family))
    config.update({"vocab_size": VOCABULARY, **sizes})
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


@pytest.mark.parametrize("quantisation", [AWQ, GPTQ, PACKED], ids=["awq", "gptq", "packed"])
def test_packed_layers_are_what_they_stand_for(quantisation: dict[str, Any], tmp_path: Path) -> None:
    import torch

    expected = save_packed(tmp_path / "base", quantisation)
    manifest, found = add(tmp_path / "base", tmp_path)
    assert {file["path"] for file in manifest["published"]} == {
        "config.json",
        "model-1.safetensors",
        "model-2.safetensors",
        "model.safetensors.index.json",
    }
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0.02, atol=1e-6)


def test_inputs_of_gptq_name_their_groups_and_may_have_eight_bits(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    values, zeros, groups = torch.randint(256, (64, 32)), torch.randint(256, (2, 32)), torch.randint(2, (64,))
    scales = torch.rand(2, 32)
    bytes_of = {"qweight": values.T.to(torch.uint8).contiguous(), "qzeros": zeros.to(torch.uint8)}
    packed = {f"a.{name}": matrix.view(torch.int32) for name, matrix in bytes_of.items()}
    stored = packed | {"a.qweight": packed["a.qweight"].T.contiguous(), "a.scales": scales, "a.g_idx": groups.int()}
    save_file(stored, tmp_path / "model.safetensors")
    unpack_weights(tmp_path, tmp_path / "plain", GPTQ | {"bits": 8, "checkpoint_format": "gptq_v2"})
    found = load_file(tmp_path / "plain" / "model.safetensors")
    assert torch.equal(found["a.weight"], ((values - zeros[groups]) * scales[groups]).T.bfloat16())


@pytest.mark.parametrize(
    ("changed", "reason"), [({"version": "gemv"}, "QUANTISED"), ({"bits": 3}, "QUANTISED"), ({}, "BASE_UNREADABLE")]
)
def test_packed_layers_that_cannot_be_read_are_refused(changed: dict[str, Any], reason: str, tmp_path: Path) -> None:
    save_packed(tmp_path / "base", AWQ)
    config = tmp_path / "base" / "config.json"
    described = json.loads(config.read_text())
    config.write_text(json.dumps(described | {"quantization_config": AWQ | changed}))
    if not changed:
        index = tmp_path / "base" / "model.safetensors.index.json"
        weight_map = json.loads(index.read_text())["weight_map"]
        known = {name: file for name, file in weight_map.items() if "-1." in file}
        index.write_text(json.dumps({"metadata": {}, "weight_map": known}))
    with pytest.raises(InvalidArgument) as refused:
        add(tmp_path / "base", tmp_path)
    assert refused.value.reason == reason


def test_only_weights_of_four_bits_whose_activations_are_left_as_they_are_are_served_as_published() -> None:
    served = [AWQ, GPTQ, PACKED]
    presets: dict[str, Any] = {**PACKED, "config_groups": {"W4A16": ["Linear"]}}
    swapped: dict[str, Any] = {**PACKED, "config_groups": {"a": {"weights": {"num_bits": 4, "actorder": "group"}}}}
    others = [
        swapped,
        GPTQ | {"desc_act": True},
        INT8,
        FP8,
        MXFP4,
        presets,
        PACKED | {"config_groups": None},
        GPTQ | {"bits": 8},
        GPTQ | {"sym": False},
    ]
    text = {"architectures": ["LlamaForCausalLM"]}
    assert all(is_served_as_published({**text, "quantization_config": found}) for found in served)
    assert not any(is_served_as_published({**text, "quantization_config": found}) for found in others)
    assert not is_served_as_published(
        {"architectures": ["Mistral3ForConditionalGeneration"], "quantization_config": AWQ}
    )


@pytest.mark.slow
@needs_vllm
@pytest.mark.parametrize(
    "quantisation",
    [AWQ, pytest.param(GPTQ, marks=pytest.mark.release), pytest.param(PACKED, marks=pytest.mark.release)],
)
def test_vllm_serves_an_adapter_on_packed_layers_as_the_trainer_scored_it(
    quantisation: dict[str, Any], tmp_path: Path
) -> None:
    if not computes_in_bf16():
        pytest.skip("the kernels for packed layers compute in bf16")
    save_packed(tmp_path / "base", quantisation, **SIZES, head_dim=64)
    store = FileStore(tmp_path / "store")
    *_, _base = StoredBases(store, tmp_path / "scratch", fetch=fetch_here).add("packed", f"path:{tmp_path / 'base'}")
    fetched = fetch_base(store, "packed", tmp_path / "cache", quantised=True)
    assert "quantization_config" in json.loads((fetched.served / "config.json").read_text())
    adapter = train(fetched.folder, tmp_path / "adapter")
    (adapter / "README.md").unlink()
    library = VerifiedLibrary(store, fetched, tmp_path / "cache", 8)
    reference = publish_adapter(store, adapter, fetched.digest)
    tokens, prompt = tuple(range(4, 36)), 8
    with engine_of(fetched.served, fetched.layers.targets) as engine:
        engine.load("a", library.fetch(reference))
        for name, folder in (("", None), ("a", adapter)):
            score = engine.score_tokens(tokens, prompt, name).log_probability / (len(tokens) - prompt)
            assert score == pytest.approx(reference_score(fetched.folder, folder, tokens, prompt), abs=0.02)
