"""Checks of an adapter's weights."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from services.inference.adapters.verify import Lora, check_config
from services.inference.adapters.weights import (
    MAX_TIMES_BASE,
    check_magnitudes,
    check_numbers,
    check_weights,
    largest_norm,
    linear_shapes,
    max_weight_bytes,
    read_header,
)
from tailor.errors import FailedPrecondition
from tests.unit.inference.test_verify import CONFIG, LAYERS, reason

BASE = {"model.layers.0.self_attn.q_proj": [8, 4]}
A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
B = A.replace("lora_A", "lora_B")


def entry(shape: list[int], begin: int, dtype: str = "F32") -> dict[str, Any]:
    size = shape[0] * shape[1] * (4 if dtype == "F32" else 2)
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, begin + size]}


def written(folder: Path, header: bytes, data: bytes = b"") -> Path:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


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
        check_weights(header, check_config(json.dumps(CONFIG).encode(), LAYERS), BASE)
    assert reason(caught) == expected


@pytest.mark.parametrize("target", ["q_proj", "model.layers.0.self_attn.q_proj"])
def test_admits_matching_weights(target: str) -> None:
    lora = check_config(json.dumps(CONFIG | {"target_modules": [target]}).encode(), LAYERS)
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
    path = written(tmp_path, header, b"1234" + tail if tail else b"12")
    with pytest.raises(FailedPrecondition):
        read_header(path)


@pytest.mark.parametrize(
    "described",
    [
        '{"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 4]}',
        '{"dtype": "F32", "shape": [1], "data_offsets": [0]}',
        '{"dtype": "F32", "shape": [1], "data_offsets": ["0", "4"]}',
        '{"dtype": "F32", "shape": [1], "data_offsets": [0.0, 4.0]}',
        '{"dtype": "F32", "shape": [1], "data_offsets": [0, 1e999]}',
        '{"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}',
        '{"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}',
        '{"dtype": "F32", "shape": [1], "data_offsets": [0, 4], "more": 1}',
        '{"dtype": "F32", "data_offsets": [0, 4]}',
        '{"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}',
        "[" * 100_000,
        "null",
    ],
)
def test_refuses_a_header_that_describes_no_tensor(tmp_path: Path, described: str) -> None:
    path = written(tmp_path, f'{{"x": {described}}}'.encode(), b"1234")
    with pytest.raises(FailedPrecondition) as caught:
        read_header(path)
    assert reason(caught) == "NOT_SAFETENSORS"


@pytest.mark.parametrize(
    ("dtype", "numbers", "finite"),
    [
        ("F32", struct.pack("<2f", 3e38, -1.0), True),
        ("F32", struct.pack("<2f", 1.0, float("nan")), False),
        ("F32", struct.pack("<2f", float("-inf"), 1.0), False),
        ("F16", struct.pack("<2e", 65504.0, 0.0), True),
        ("F16", struct.pack("<2e", 0.0, float("inf")), False),
        ("BF16", b"\x7f\x7f\x00\x80", True),
        ("BF16", b"\x00\x00\xc1\xff", False),
    ],
)
def test_refuses_weights_that_are_no_numbers(tmp_path: Path, dtype: str, numbers: bytes, finite: bool) -> None:
    path = written(tmp_path, json.dumps({A: entry([1, 2], 0, dtype)}).encode(), numbers)
    if finite:
        check_numbers(path, read_header(path))
        return
    with pytest.raises(FailedPrecondition) as caught:
        check_numbers(path, read_header(path))
    assert reason(caught) == "NOT_FINITE"


@pytest.mark.parametrize(
    ("a", "b", "scaling", "admitted"),
    [
        (1.0, 49.0, 1.0, True),
        (1.0, 49.0, 2.0, False),
        (MAX_TIMES_BASE, 0.0, 1.0, False),
        (0.0, MAX_TIMES_BASE, 1.0, False),
        (8.0, 8.0, 1.0, False),
        (1e-3, 1e-3, 1.0, True),
        (3e38, 3e38, 1.0, False),
    ],
)
def test_bounds_both_matrices_and_their_scaled_product_by_the_base(
    tmp_path: Path, a: float, b: float, scaling: float, admitted: bool
) -> None:
    # Two numbers of the same size have a norm of about 1.4 times that size.
    header = json.dumps({A: entry([1, 2], 0), B: entry([2, 1], 8)}).encode()
    path = written(tmp_path, header, struct.pack("<4f", a, a, b, b))
    lora = Lora(1, frozenset({"q_proj"}), scaling)
    if admitted:
        check_magnitudes(path, read_header(path), lora, base_norm=1.0)
        return
    with pytest.raises(FailedPrecondition) as caught:
        check_magnitudes(path, read_header(path), lora, base_norm=1.0)
    assert reason(caught) == "WEIGHTS_TOO_LARGE"


@pytest.mark.parametrize(
    ("dtype", "numbers"),
    [("F32", struct.pack("<2f", 3.0, -4.0)), ("F16", struct.pack("<2e", 3.0, -4.0)), ("BF16", b"\x40\x40\x80\xc0")],
)
def test_measures_a_bases_largest_layer_in_every_type(tmp_path: Path, dtype: str, numbers: bytes) -> None:
    large = struct.pack("<2f", 1e3, 1e3)
    header = {
        "model.layers.0.self_attn.q_proj.weight": entry([1, 2], 0, dtype),
        "model.embed_tokens.weight": entry([1, 2], len(numbers)),
    }
    path = written(tmp_path, json.dumps(header).encode(), numbers + large)
    assert largest_norm(path, read_header(path), LAYERS.targets) == pytest.approx(5.0)


def test_no_adapter_is_larger_than_its_base_and_rank_allow() -> None:
    assert max_weight_bytes(BASE, 32) - max_weight_bytes(BASE, 16) == 16 * (8 + 4) * 4


def test_finds_the_adaptable_layers_of_a_base() -> None:
    header: dict[str, dict[str, Any]] = {f"{name}.weight": {"shape": shape} for name, shape in BASE.items()}
    header |= {"lm_head.weight": {"shape": [10, 4]}, "model.norm.weight": {"shape": [4]}}
    assert linear_shapes(header, LAYERS.targets) == BASE
