"""What may be loaded, and what is refused."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from services.inference.adapters.verify import (
    check_adapter_manifest,
    check_config,
    check_weights,
    linear_shapes,
    read_header,
    read_probes,
)
from services.inference.domain import Probe
from tailor.errors import FailedPrecondition

BASE = {"model.layers.0.self_attn.q_proj": [8, 4]}
CONFIG = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
B = A.replace("lora_A", "lora_B")


def entry(shape: list[int], begin: int, dtype: str = "F32") -> dict[str, Any]:
    size = shape[0] * shape[1] * (4 if dtype == "F32" else 2)
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, begin + size]}


def file(name: str) -> dict[str, Any]:
    return {"path": name, "sha256": "a" * 64, "size_bytes": 1, "key": f"adapters/files/{'a' * 64}"}


def manifest(**changes: Any) -> dict[str, Any]:
    files = [file("adapter_model.safetensors"), file("adapter_config.json"), file("README.md")]
    return {"kind": "policy", "base_digest": "base", "files": files} | changes


def reason(error: pytest.ExceptionInfo[FailedPrecondition]) -> str:
    return error.value.reason


def probe(**changes: Any) -> dict[str, Any]:
    return {"row_id": "p", "tokens": [1, 2, 3], "prompt_length": 2, "log_probability": -1.5} | changes


def test_reads_the_probe_rows_that_the_trainer_stored() -> None:
    assert read_probes(manifest(probes=[probe()])) == [Probe((1, 2, 3), 2, -1.5)]
    assert read_probes(manifest()) == []


@pytest.mark.parametrize(
    "probes",
    [
        [{}],
        ["x"],
        [probe(tokens=None)],
        [probe(tokens=[])],
        [probe(tokens=["1", 2, 3])],
        [probe(tokens=[1.5, 2, 3])],
        [probe(prompt_length=0)],
        [probe(prompt_length=3)],
        [probe(prompt_length="2")],
        [probe(log_probability="much")],
        [probe()] * 17,
    ],
)
def test_refuses_probe_rows_that_are_none(probes: list[Any]) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        read_probes(manifest(probes=probes))
    assert reason(caught) == "BAD_MANIFEST"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"kind": "reward"}, "WRONG_KIND"),
        ({"base_digest": "other"}, "WRONG_BASE"),
        ({"files": [file("adapter_config.json")]}, "UNEXPECTED_FILE"),
        ({"files": [*manifest()["files"], file("adapter_model.bin")]}, "UNEXPECTED_FILE"),
        ({"files": [*manifest()["files"], file("../evil.json")]}, "UNSAFE_NAME"),
        ({"files": [*manifest()["files"], file("/etc/evil.json")]}, "UNSAFE_NAME"),
        ({"files": [*manifest()["files"], file("sub\\evil.json")]}, "UNSAFE_NAME"),
        ({"files": [*manifest()["files"], file("adapter_model.safetensors.index.json")]}, "UNEXPECTED_FILE"),
        ({"files": [*manifest()["files"], file("README.md")]}, "BAD_MANIFEST"),
        ({"files": [file("README.md") | {"key": "elsewhere"}]}, "BAD_MANIFEST"),
        ({"files": "all"}, "BAD_MANIFEST"),
    ],
)
def test_refuses_a_manifest(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        check_adapter_manifest(manifest(**changes), "base")
    assert reason(caught) == expected


def test_admits_a_manifest_of_three_files() -> None:
    assert len(check_adapter_manifest(manifest(), "base")) == 3


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"surprise": 1}, "UNKNOWN_CONFIG_KEY"),
        ({"modules_to_save": ["lm_head"]}, "UNSUPPORTED_ADAPTER"),
        ({"use_dora": True}, "UNSUPPORTED_ADAPTER"),
        ({"auto_mapping": {"base_model_class": "x"}}, "UNSUPPORTED_ADAPTER"),
        ({"bias": "all"}, "UNSUPPORTED_ADAPTER"),
        ({"peft_type": "IA3"}, "UNSUPPORTED_ADAPTER"),
        ({"task_type": "SEQ_CLS"}, "UNSUPPORTED_ADAPTER"),
        ({"use_qalora": True}, "UNSUPPORTED_ADAPTER"),
        ({"layer_replication": [[0, 1]]}, "UNSUPPORTED_ADAPTER"),
        ({"rank_pattern": {"q_proj": 64}}, "UNSUPPORTED_ADAPTER"),
        ({"r": 64}, "RANK_TOO_LARGE"),
        ({"r": True}, "RANK_TOO_LARGE"),
        ({"target_modules": ["lm_head"]}, "UNSUPPORTED_TARGET"),
        ({"target_modules": "all-linear"}, "UNSUPPORTED_TARGET"),
        ({"lora_alpha": 0}, "UNSUPPORTED_ADAPTER"),
    ],
)
def test_refuses_a_configuration(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        check_config(json.dumps(CONFIG | changes).encode(), 32)
    assert reason(caught) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({A: entry([2, 4], 0)}, "INCOMPLETE_ADAPTER"),
        ({}, "INCOMPLETE_ADAPTER"),
        ({A: entry([2, 5], 0), B: entry([8, 2], 40)}, "WRONG_SHAPE"),
        ({A: entry([3, 4], 0), B: entry([8, 3], 48)}, "WRONG_SHAPE"),
        ({A: entry([2, 4], 0) | {"dtype": "I8"}, B: entry([8, 2], 32)}, "WRONG_SHAPE"),
        ({A.replace("layers.0", "layers.1"): entry([2, 4], 0)}, "UNEXPECTED_MODULE"),
        ({A.replace("q_proj", "k_proj"): entry([2, 4], 0)}, "UNEXPECTED_MODULE"),
        ({A.replace(".lora_A.weight", ".lora_magnitude_vector"): entry([2, 4], 0)}, "UNEXPECTED_MODULE"),
        ({"base_model.model.lm_head.weight": entry([2, 4], 0)}, "UNEXPECTED_MODULE"),
        ({"base_model.model.score.weight": entry([1, 4], 0)}, "UNEXPECTED_MODULE"),
        ({A.replace("lora_A", "lora_embedding_A"): entry([2, 4], 0)}, "UNEXPECTED_MODULE"),
        ({A.replace("model.layers", "../layers"): entry([2, 4], 0)}, "UNEXPECTED_MODULE"),
    ],
)
def test_refuses_weights(header: dict[str, Any], expected: str) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        check_weights(header, check_config(json.dumps(CONFIG).encode(), 32), BASE)
    assert reason(caught) == expected


@pytest.mark.parametrize("target", ["q_proj", "model.layers.0.self_attn.q_proj"])
def test_admits_matching_weights(target: str) -> None:
    lora = check_config(json.dumps(CONFIG | {"target_modules": [target]}).encode(), 32)
    check_weights({A: entry([2, 4], 0, "BF16"), B: entry([8, 2], 16, "BF16")}, lora, BASE)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x80\x04\x95", struct.pack("<Q", 2**60) + b"{}", struct.pack("<Q", 4) + b"[1]]", b"PK\x03\x04" + b"0" * 64],
)
def test_refuses_what_is_not_safetensors(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(data)
    with pytest.raises(FailedPrecondition) as caught:
        read_header(path)
    assert reason(caught) == "NOT_SAFETENSORS"


@pytest.mark.parametrize("tail", [b"x", b""])
def test_refuses_a_file_that_its_tensors_do_not_fill(tmp_path: Path, tail: bytes) -> None:
    header = json.dumps({A: entry([1, 1], 0)}).encode()
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + (b"1234" + tail if tail else b"12"))
    with pytest.raises(FailedPrecondition):
        read_header(path)


def test_finds_the_adaptable_layers_of_a_base() -> None:
    header = {f"{name}.weight": {"shape": shape} for name, shape in BASE.items()}
    header |= {"lm_head.weight": {"shape": [10, 4]}, "model.norm.weight": {"shape": [4]}}
    assert linear_shapes(header) == BASE
