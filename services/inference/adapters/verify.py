"""Only safetensors and JSON are loaded, and only after every name, shape and digest was checked."""

import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.inference.domain import MAX_PROBES, Probe
from tailor.errors import FailedPrecondition

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
CARD = "README.md"
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
SHA256 = re.compile(r"[0-9a-f]{64}")
MAX_MANIFEST_BYTES = 1024 * 1024
MAX_HEADER_BYTES = 16 * 1024 * 1024

TENSOR = re.compile(r"base_model\.model\.(?P<module>[A-Za-z0-9_.]+)\.lora_(?P<side>[AB])\.weight")
DTYPE_BYTES = {"F32": 4, "BF16": 2, "F16": 2}
TARGETS = frozenset({"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"})


def _layer(module: str) -> str:
    return module.rpartition(".")[2]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Keys of peft's configuration that we read or that change nothing at inference. Every other known key must be off.
FREE_KEYS = _words(
    """base_model_name_or_path inference_mode init_lora_weights lora_alpha lora_dropout megatron_core peft_type peft_version
    qalora_group_size r revision target_modules task_type use_rslora"""
)
OFF_KEYS = _words(
    """alora_invocation_tokens alpha_pattern arrow_config auto_mapping bias corda_config ensure_weight_tying eva_config
    exclude_modules fan_in_fan_out kasa_config layer_replication layers_pattern layers_to_transform loftq_config lora_bias
    lora_ga_config megatron_config modules_to_save monteclora_config rank_pattern target_parameters trainable_token_indices
    use_bdlora use_dora use_qalora velora_config"""
)
OFF_VALUES: tuple[object, ...] = (None, False, "none", [], {})


@dataclass(frozen=True)
class File:
    """One file of a manifest."""

    path: str
    sha256: str
    size_bytes: int
    key: str


@dataclass(frozen=True)
class Lora:
    """What an adapter's configuration says. Targets are layers' names or whole paths, as peft writes them."""

    rank: int
    targets: frozenset[str]

    def reaches(self, module: str) -> bool:
        """True if the adapter may change the module."""
        return module in self.targets or _layer(module) in self.targets


Shapes = Mapping[str, Sequence[int]]


def refuse(reason: str, message: str) -> FailedPrecondition:
    """The error of something that must not be loaded."""
    return FailedPrecondition(reason, message)


def read_manifest(data: bytes) -> Mapping[str, Any]:
    """A manifest as JSON."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise refuse("BAD_MANIFEST", "The manifest is too large.")
    try:
        manifest = json.loads(data)
    except ValueError:
        raise refuse("BAD_MANIFEST", "The manifest is not JSON.") from None
    if not isinstance(manifest, dict):
        raise refuse("BAD_MANIFEST", "The manifest is not an object.")
    return manifest


def read_files(manifest: Mapping[str, Any]) -> list[File]:
    """The manifest's files; refused where a name has a path in it or a key is not by digest."""
    try:
        files = [File(str(f["path"]), str(f["sha256"]), int(f["size_bytes"]), str(f["key"])) for f in manifest["files"]]
    except (KeyError, TypeError, ValueError):
        raise refuse("BAD_MANIFEST", "The manifest's list of files is not complete.") from None
    for file in files:
        if not SAFE_NAME.fullmatch(file.path):
            raise refuse("UNSAFE_NAME", "A file's name is not a plain name.")
        if not SHA256.fullmatch(file.sha256) or file.sha256 not in file.key or ".." in file.key:
            raise refuse("BAD_MANIFEST", "A file's key does not hold its digest.")
    if len({file.path for file in files}) != len(files):
        raise refuse("BAD_MANIFEST", "Two files have one name.")
    return files


def check_adapter_manifest(manifest: Mapping[str, Any], base_digest: str) -> list[File]:
    """The files of an adapter that may serve on this base."""
    if manifest.get("kind") != "policy":
        raise refuse("WRONG_KIND", "Only adapters of kind `policy` serve.")
    if manifest.get("base_digest") != base_digest:
        raise refuse("WRONG_BASE", "The adapter was trained on another base.")
    files = read_files(manifest)
    names = {file.path for file in files}
    if not {WEIGHTS, CONFIG} <= names or names - {WEIGHTS, CONFIG, CARD}:
        raise refuse(
            "UNEXPECTED_FILE", f"An adapter is {WEIGHTS}, {CONFIG} and perhaps {CARD}; nothing else is loaded."
        )
    return files


def read_probes(manifest: Mapping[str, Any]) -> list[Probe]:
    """The trainer's probe rows with what it found of them; none where the manifest holds none with tokens."""
    entries = manifest.get("probes")
    if not isinstance(entries, list):
        return []
    try:
        probes = [Probe(tuple(e["tokens"]), e["prompt_length"], float(e["log_probability"])) for e in entries]
    except (KeyError, TypeError, ValueError):
        raise refuse("BAD_MANIFEST", "A probe row is not complete.") from None
    if len(probes) > MAX_PROBES or not all(_is_sound(probe) for probe in probes):
        raise refuse("BAD_MANIFEST", f"At most {MAX_PROBES} probe rows, each of a prompt and an answer in tokens.")
    return probes


def _is_sound(probe: Probe) -> bool:
    numbers = (probe.prompt_length, *probe.tokens)
    return all(type(number) is int for number in numbers) and 1 <= probe.prompt_length < len(probe.tokens)


def check_config(data: bytes, max_rank: int) -> Lora:
    """What the configuration says; refused where it asks for anything but plain LoRA on linear layers."""
    config = read_manifest(data)
    unknown = set(config) - FREE_KEYS - OFF_KEYS
    if unknown:
        raise refuse("UNKNOWN_CONFIG_KEY", f"The adapter's configuration has {len(unknown)} unknown keys.")
    on = sorted(key for key in OFF_KEYS & set(config) if config[key] not in OFF_VALUES)
    if on:
        raise refuse("UNSUPPORTED_ADAPTER", f"The adapter uses {', '.join(on)}, which does not serve.")
    if config.get("peft_type") != "LORA" or config.get("task_type") != "CAUSAL_LM":
        raise refuse("UNSUPPORTED_ADAPTER", "Only LoRA adapters of causal models serve.")
    rank, targets, alpha = config.get("r"), config.get("target_modules"), config.get("lora_alpha")
    if type(rank) is not int or not 1 <= rank <= max_rank:
        raise refuse("RANK_TOO_LARGE", f"The adapter's rank must be from 1 to {max_rank}.")
    if not isinstance(alpha, int | float) or not math.isfinite(alpha) or alpha <= 0:
        raise refuse("UNSUPPORTED_ADAPTER", "lora_alpha must be a positive number.")
    if not isinstance(targets, list) or not targets or not {_layer(str(target)) for target in targets} <= TARGETS:
        raise refuse("UNSUPPORTED_TARGET", f"Adapters may change {', '.join(sorted(TARGETS))} alone.")
    return Lora(rank, frozenset(map(str, targets)))


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file, whose tensors fill the file exactly."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise refuse("NOT_SAFETENSORS", "The weights are not a safetensors file.")
        data = file.read(length)
    try:
        header = json.loads(data)
        header.pop("__metadata__", None)
        ends = sorted(tuple(map(int, entry["data_offsets"])) for entry in header.values())
    except (ValueError, AttributeError, KeyError, TypeError):
        raise refuse("NOT_SAFETENSORS", "The weights are not a safetensors file.") from None
    place = 0
    for begin, end in ends:
        if begin != place or end < begin:
            raise refuse("NOT_SAFETENSORS", "The tensors overlap or leave gaps.")
        place = end
    if 8 + length + place != size:
        raise refuse("NOT_SAFETENSORS", "The file holds more or less than its tensors.")
    return dict(header)


def linear_shapes(header: Mapping[str, Any]) -> dict[str, Sequence[int]]:
    """Shapes (out, in) of a base's adaptable layers, by module."""
    modules = {
        name.removesuffix(".weight"): entry["shape"] for name, entry in header.items() if name.endswith(".weight")
    }
    return {name: shape for name, shape in modules.items() if _layer(name) in TARGETS and len(shape) == 2}


def check_weights(header: Mapping[str, Any], lora: Lora, base: Shapes) -> None:
    """Refuse an adapter that has anything but a pair of matrices of the right shape for layers of the base that it names."""
    sides: dict[str, set[str]] = {}
    for name, entry in header.items():
        match = TENSOR.fullmatch(name)
        if match is None or not lora.reaches(match["module"]) or match["module"] not in base:
            raise refuse(
                "UNEXPECTED_MODULE", "The weights have a tensor that belongs to no adaptable layer of the base."
            )
        out_size, in_size = base[match["module"]]
        expected = [lora.rank, in_size] if match["side"] == "A" else [out_size, lora.rank]
        size = math.prod(expected) * DTYPE_BYTES.get(str(entry.get("dtype")), 0)
        begin, end = entry["data_offsets"]
        if entry.get("shape") != expected or size != end - begin:
            raise refuse("WRONG_SHAPE", "A tensor's shape or type does not match the base and the rank.")
        sides.setdefault(match["module"], set()).add(match["side"])
    if not sides or any(found != {"A", "B"} for found in sides.values()):
        raise refuse("INCOMPLETE_ADAPTER", "A layer lacks one of its two matrices.")
