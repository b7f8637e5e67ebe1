"""Checks of an adapter's manifest and configuration."""

import json
from typing import Any

import pytest

from services.inference.adapters.verify import (
    AdaptedLayers,
    check_adapter_manifest,
    check_config,
    check_sizes,
    read_files,
    read_manifest,
    read_probes,
)
from services.inference.domain import Probe
from tailor.errors import FailedPrecondition

CONFIG = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
LAYERS = AdaptedLayers(("q_proj", "k_proj", "mlp.up_proj"), 32)


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
        [probe(log_probability=10**400)],
        [probe()] * 17,
    ],
)
def test_refuses_invalid_probe_rows(probes: list[Any]) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        read_probes(manifest(probes=probes))
    assert reason(caught) == "INVALID_MANIFEST"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"kind": "reward"}, "WRONG_KIND"),
        ({"base_digest": "other"}, "WRONG_BASE"),
        ({"not_served_because": "DoRA is merged only."}, "UNSUPPORTED_ADAPTER"),
        ({"files": [file("adapter_config.json")]}, "UNEXPECTED_FILE"),
        ({"files": [*manifest()["files"], file("adapter_model.bin")]}, "UNEXPECTED_FILE"),
        ({"files": [*manifest()["files"], file("../evil.json")]}, "UNSAFE_NAME"),
        ({"files": [*manifest()["files"], file("/etc/evil.json")]}, "UNSAFE_NAME"),
        ({"files": [*manifest()["files"], file("sub\\evil.json")]}, "UNSAFE_NAME"),
        ({"files": [*manifest()["files"], file("adapter_model.safetensors.index.json")]}, "UNEXPECTED_FILE"),
        ({"files": [*manifest()["files"], file("README.md")]}, "INVALID_MANIFEST"),
        ({"files": [file("README.md") | {"key": "elsewhere"}]}, "INVALID_MANIFEST"),
        ({"files": [file("README.md") | {"key": "a" * 64 + "b" * 500}]}, "INVALID_MANIFEST"),
        ({"files": [file("README.md") | {"key": "adapters\n" + "a" * 64}]}, "INVALID_MANIFEST"),
        ({"files": "all"}, "INVALID_MANIFEST"),
    ],
)
def test_refuses_a_manifest(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        check_adapter_manifest(manifest(**changes), "base")
    assert reason(caught) == expected


@pytest.mark.parametrize(
    "data", [b"[" * 100_000, b'{"a":' * 100_000, b'{"kind": "reward", "kind": "policy"}', b"[]", b"\xff"]
)
def test_refuses_a_manifest_that_is_no_plain_object(data: bytes) -> None:
    for read in (read_manifest, lambda data: check_config(data, LAYERS)):
        with pytest.raises(FailedPrecondition):
            read(data)


def test_refuses_files_without_end_or_larger_than_any_adapter() -> None:
    with pytest.raises(FailedPrecondition) as caught:
        read_files({"files": [file("README.md") | {"size_bytes": float("inf")}]})
    assert reason(caught) == "INVALID_MANIFEST"
    for name, size in (("adapter_model.safetensors", 1001), ("README.md", 2**20 + 1), ("adapter_config.json", 0)):
        with pytest.raises(FailedPrecondition) as caught:
            check_sizes(read_files({"files": [file(name) | {"size_bytes": size}]}), 1000)
        assert reason(caught) == "TOO_LARGE"
    check_sizes(read_files({"files": [file("adapter_model.safetensors") | {"size_bytes": 1000}]}), 1000)


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
        ({"lora_alpha": True}, "UNSUPPORTED_ADAPTER"),
        ({"lora_alpha": 10**400}, "UNSUPPORTED_ADAPTER"),
        ({"lora_alpha": 1e308}, "UNSUPPORTED_ADAPTER"),
        ({"lora_alpha": float("nan")}, "UNSUPPORTED_ADAPTER"),
        ({"lora_dropout": "x"}, "UNSUPPORTED_ADAPTER"),
        ({"lora_dropout": None}, "UNSUPPORTED_ADAPTER"),
        ({"lora_dropout": 5}, "UNSUPPORTED_ADAPTER"),
        ({"use_rslora": "no"}, "UNSUPPORTED_ADAPTER"),
        ({"init_lora_weights": "pissa"}, "UNSUPPORTED_ADAPTER"),
        ({"init_lora_weights": 5}, "UNSUPPORTED_ADAPTER"),
        ({"init_lora_weights": ["pissa"]}, "UNSUPPORTED_ADAPTER"),
    ],
)
def test_refuses_a_configuration(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        check_config(json.dumps(CONFIG | changes).encode(), LAYERS)
    assert reason(caught) == expected
