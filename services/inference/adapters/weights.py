"""Checks an adapter's weights (names, shapes, numbers) against the base before anything loads them."""

import math
import re
import struct
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from services.inference.adapters.verify import Lora, read_object, refuse
from tailor.errors import Reason
from tailor.layer_paths import has_end

MAX_HEADER_BYTES = 16 * 1024 * 1024
PREFIX_BYTES = 8
CHUNK_BYTES = 4 * 1024 * 1024
# Of each layer of a base: 65,000 numbers or more, whose norm is that of the layer within a few percent.
SAMPLE_BYTES = 256 * 1024
TENSOR = re.compile(r"base_model\.model\.(?P<module>[A-Za-z0-9_.]+)\.lora_(?P<side>[AB])\.weight")
DTYPE_BYTES = {"F32": 4, "BF16": 2, "F16": 2}
# The exponent's bits by type: all of them are set in infinities and NaN only (IEEE 754).
EXPONENTS = {"F32": 0x7F800000, "BF16": 0x7F80, "F16": 0x7C00}
# How many times as large as the base's largest layer an adapter may make anything: each of a layer's two matrices, and their product,
# scaled. Adapters trained on SmolLM2-135M have 0.01 to 0.04, an overtrained one 0.24. 100 stays finite: an MLP multiplies three layers,
# which makes 1e6 times the base's own numbers.
MAX_TIMES_BASE = 100.0

Shapes = Mapping[str, Sequence[int]]
Header = dict[str, dict[str, Any]]


def max_weight_bytes(base: Shapes, max_rank: int) -> int:
    """Size of the largest possible adapter of a base."""
    numbers = sum(max_rank * (out_size + in_size) for out_size, in_size in base.values())
    return PREFIX_BYTES + MAX_HEADER_BYTES + numbers * max(DTYPE_BYTES.values())


def read_header(path: Path) -> Header:
    """Read the header of a safetensors file. Raises FailedPrecondition (NOT_SAFETENSORS) unless its tensors fill the file exactly."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(PREFIX_BYTES)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == PREFIX_BYTES else size
        if not 2 <= length <= min(MAX_HEADER_BYTES, size - PREFIX_BYTES):
            raise refuse(Reason.NOT_SAFETENSORS, "The weights are not a safetensors file.")
        header = read_object(file.read(length), Reason.NOT_SAFETENSORS, "The weights' header")
    header.pop("__metadata__", None)
    position = 0
    for begin, end in sorted(_offsets(entry) for entry in header.values()):
        if begin != position or end < begin:
            raise refuse(Reason.NOT_SAFETENSORS, "The weights' tensors overlap or leave gaps.")
        position = end
    if PREFIX_BYTES + length + position != size:
        raise refuse(Reason.NOT_SAFETENSORS, "The file is longer or shorter than its tensors.")
    return header


def _offsets(entry: Any) -> tuple[int, int]:
    """Start and end of a tensor. Raises FailedPrecondition unless it is described by type, shape and two whole numbers."""
    if isinstance(entry, dict) and set(entry) == {"dtype", "shape", "data_offsets"}:
        kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        lists = isinstance(shape, list) and isinstance(offsets, list) and len(offsets) == 2
        if isinstance(kind, str) and lists and all(type(number) is int for number in (*shape, *offsets)):
            return offsets[0], offsets[1]
    raise refuse(Reason.NOT_SAFETENSORS, "A tensor must be described by dtype, shape and data_offsets.")


def linear_shapes(header: Header, targets: Collection[str]) -> dict[str, Sequence[int]]:
    """Shapes (out, in) of a base's layers that adapters may change, by module."""
    modules = {
        name.removesuffix(".weight"): entry["shape"] for name, entry in header.items() if name.endswith(".weight")
    }
    return {name: shape for name, shape in modules.items() if len(shape) == 2 and has_end(name, *targets)}


def check_weights(header: Header, lora: Lora, base: Shapes) -> None:
    """Raise FailedPrecondition unless every tensor is one of a pair of matrices, of the right shape, for a targeted layer of the base."""
    sides: dict[str, set[str]] = {}
    for name, entry in header.items():
        match = TENSOR.fullmatch(name)
        if match is None or not lora.reaches(match["module"]) or match["module"] not in base:
            raise refuse(
                Reason.UNEXPECTED_MODULE, "A tensor of the weights does not belong to an adaptable layer of the base."
            )
        out_size, in_size = base[match["module"]]
        expected = [lora.rank, in_size] if match["side"] == "A" else [out_size, lora.rank]
        size = math.prod(expected) * DTYPE_BYTES.get(entry["dtype"], 0)
        begin, end = entry["data_offsets"]
        if entry["shape"] != expected or size != end - begin:
            raise refuse(Reason.WRONG_SHAPE, "A tensor's shape or type does not match the base and the rank.")
        sides.setdefault(match["module"], set()).add(match["side"])
    if not sides or any(pair != {"A", "B"} for pair in sides.values()):
        raise refuse(Reason.INCOMPLETE_ADAPTER, "A layer of the adapter lacks one of its two matrices.")


def check_numbers(path: Path, header: Header) -> None:
    """Raise FailedPrecondition (NOT_FINITE) if a weight is infinite or NaN, which would spoil other rows of the same batch.

    The weights must have passed `check_weights`.
    """
    with path.open("rb") as file:
        start = PREFIX_BYTES + struct.unpack("<Q", file.read(PREFIX_BYTES))[0]
        for entry in header.values():
            begin, end = entry["data_offsets"]
            file.seek(start + begin)
            for position in range(begin, end, CHUNK_BYTES):
                if not _are_finite(file.read(min(CHUNK_BYTES, end - position)), entry["dtype"]):
                    raise refuse(Reason.NOT_FINITE, "A weight is infinite or NaN.")


def _are_finite(data: bytes, kind: str) -> bool:
    import numpy

    bits = numpy.frombuffer(data, dtype=f"<u{DTYPE_BYTES[kind]}")
    return not bool(((bits & EXPONENTS[kind]) == EXPONENTS[kind]).any())


def largest_norm(path: Path, header: Header, targets: Collection[str]) -> float:
    """The largest Frobenius norm among a base's targeted layers, each estimated from its first SAMPLE_BYTES; 0 if none can be read."""
    layers = [f"{name}.weight" for name in linear_shapes(header, targets)]
    return max((_norm(path, header[name], SAMPLE_BYTES) for name in layers), default=0.0)


def check_magnitudes(path: Path, header: Header, lora: Lora, base_norm: float) -> None:
    """Raise FailedPrecondition (WEIGHTS_TOO_LARGE) if a matrix, or what it adds to its layer, is over MAX_TIMES_BASE times `base_norm`.

    Larger numbers, although finite, overflow on their way through the layers and spoil what other answers read from the same memory.
    The weights must have passed `check_weights` and `check_numbers`.
    """
    norms = {name: _norm(path, entry) for name, entry in header.items()}
    for name, norm in norms.items():
        if ".lora_A." in name:
            up = lora.scaling * norms[name.replace(".lora_A.", ".lora_B.")]
            if max(norm, up, norm * up) > MAX_TIMES_BASE * base_norm:
                raise refuse(
                    Reason.WEIGHTS_TOO_LARGE,
                    f"The weights of a layer are over {MAX_TIMES_BASE:g} times as large as the base's. The run has diverged.",
                )


def _norm(path: Path, entry: Mapping[str, Any], sample_bytes: int | None = None) -> float:
    """The Frobenius norm of a tensor, estimated from its first bytes if `sample_bytes` are given; 0 for types that are not read."""
    begin, end = entry["data_offsets"]
    if entry["dtype"] not in DTYPE_BYTES or begin == end:
        return 0.0
    last = end if sample_bytes is None else min(end, begin + sample_bytes)
    squares = 0.0
    with path.open("rb") as file:
        start = PREFIX_BYTES + struct.unpack("<Q", file.read(PREFIX_BYTES))[0]
        file.seek(start + begin)
        for position in range(begin, last, CHUNK_BYTES):
            squares += _sum_of_squares(file.read(min(CHUNK_BYTES, last - position)), entry["dtype"])
    return math.sqrt(squares * (end - begin) / (last - begin))


def _sum_of_squares(data: bytes, kind: str) -> float:
    import numpy

    if kind == "BF16":
        # The upper half of a 32-bit float.
        numbers = (numpy.frombuffer(data, dtype="<u2").astype("<u4") << 16).view("<f4")
    else:
        numbers = numpy.frombuffer(data, dtype=f"<f{DTYPE_BYTES[kind]}")
    wide = numbers.astype(numpy.float64)
    return float(wide @ wide)
