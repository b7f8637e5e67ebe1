"""What an adapter says of itself: its manifest and its configuration are read, and refused, before anything is loaded."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from services.inference.domain import MAX_PROBES, Probe
from tailor.errors import FailedPrecondition, Reason

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
CARD = "README.md"
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
SAFE_KEY = re.compile(r"[A-Za-z0-9._/-]{1,512}")
SHA256 = re.compile(r"[0-9a-f]{64}")
MAX_MANIFEST_BYTES = 1024 * 1024
MAX_ALPHA = 2**16
TARGETS = frozenset({"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"})


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
# Ways to begin that leave the base as it is; the others (PiSSA, OLoRA, LoftQ, CorDA, LoRA-GA) train against a changed one.
BEGINNINGS = ("gaussian", "orthogonal", "eva")


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
        return module in self.targets or layer(module) in self.targets


def layer(module: str) -> str:
    """The last part of a module's name."""
    return module.rpartition(".")[2]


def refuse(reason: Reason, message: str) -> FailedPrecondition:
    """The error of something that must not be loaded."""
    return FailedPrecondition(reason, message)


def read_manifest(data: bytes) -> Mapping[str, Any]:
    """A manifest as JSON."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise refuse(Reason.INVALID_MANIFEST, "The manifest is too large.")
    return read_object(data, Reason.INVALID_MANIFEST, "The manifest")


def read_object(data: bytes, reason: Reason, what: str) -> dict[str, Any]:
    """A JSON object; refused where it is none, too deep to be read, or says one thing twice."""
    try:
        value = json.loads(data, object_pairs_hook=_without_twins)
    except (ValueError, RecursionError):
        raise refuse(reason, f"{what} is not JSON, or says a thing twice.") from None
    if not isinstance(value, dict):
        raise refuse(reason, f"{what} is not an object.")
    return value


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def read_files(manifest: Mapping[str, Any]) -> list[File]:
    """The manifest's files; refused where a name has a path in it or a key is not by digest."""
    try:
        files = [File(str(f["path"]), str(f["sha256"]), int(f["size_bytes"]), str(f["key"])) for f in manifest["files"]]
    except (KeyError, TypeError, ValueError, OverflowError):
        raise refuse(Reason.INVALID_MANIFEST, "The manifest's list of files is not complete.") from None
    for file in files:
        if not SAFE_NAME.fullmatch(file.path):
            raise refuse(Reason.UNSAFE_NAME, "A file's name is not a plain name.")
        if not SHA256.fullmatch(file.sha256) or file.sha256 not in file.key or ".." in file.key:
            raise refuse(Reason.INVALID_MANIFEST, "A file's key does not hold its digest.")
        # The store's own refusal of a key could not be told from an outage, which is waited for.
        if not SAFE_KEY.fullmatch(file.key):
            raise refuse(Reason.INVALID_MANIFEST, "A file's key is no plain path.")
    if len({file.path for file in files}) != len(files):
        raise refuse(Reason.INVALID_MANIFEST, "Two files have one name.")
    return files


def check_adapter_manifest(manifest: Mapping[str, Any], base_digest: str) -> list[File]:
    """The files of an adapter that may serve on this base."""
    if manifest.get("kind") != "policy":
        raise refuse(Reason.WRONG_KIND, "Only adapters of kind `policy` serve.")
    if manifest.get("base_digest") != base_digest:
        raise refuse(Reason.WRONG_BASE, "The adapter was trained on another base.")
    files = read_files(manifest)
    names = {file.path for file in files}
    if not {WEIGHTS, CONFIG} <= names or names - {WEIGHTS, CONFIG, CARD}:
        raise refuse(
            Reason.UNEXPECTED_FILE, f"An adapter is {WEIGHTS}, {CONFIG} and perhaps {CARD}; nothing else is loaded."
        )
    return files


def check_sizes(files: Sequence[File], max_weight_bytes: int) -> None:
    """Refuse what is larger than any adapter of the base, before it is fetched."""
    for file in files:
        if not 0 < file.size_bytes <= (max_weight_bytes if file.path == WEIGHTS else MAX_MANIFEST_BYTES):
            raise refuse(Reason.TOO_LARGE, "A file is empty, or larger than an adapter of this base can be.")


def read_probes(manifest: Mapping[str, Any]) -> list[Probe]:
    """The trainer's probe rows with what it found of them; none where the manifest holds none with tokens."""
    entries = manifest.get("probes")
    if not isinstance(entries, list):
        return []
    try:
        probes = [Probe(tuple(e["tokens"]), e["prompt_length"], float(e["log_probability"])) for e in entries]
    except (KeyError, TypeError, ValueError, OverflowError):
        raise refuse(Reason.INVALID_MANIFEST, "A probe row is not complete.") from None
    if len(probes) > MAX_PROBES or not all(_is_sound(probe) for probe in probes):
        raise refuse(
            Reason.INVALID_MANIFEST, f"At most {MAX_PROBES} probe rows, each of a prompt and an answer in tokens."
        )
    return probes


def _is_sound(probe: Probe) -> bool:
    numbers = (probe.prompt_length, *probe.tokens)
    return all(type(number) is int for number in numbers) and 1 <= probe.prompt_length < len(probe.tokens)


def check_config(data: bytes, max_rank: int) -> Lora:
    """What the configuration says; refused where it asks for anything but plain LoRA on linear layers."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise refuse(Reason.INVALID_CONFIG, "The adapter's configuration is too large.")
    config = read_object(data, Reason.INVALID_CONFIG, "The adapter's configuration")
    unknown = set(config) - FREE_KEYS - OFF_KEYS
    if unknown:
        raise refuse(Reason.UNKNOWN_CONFIG_KEY, f"The adapter's configuration has {len(unknown)} unknown keys.")
    on = sorted(key for key in OFF_KEYS & set(config) if config[key] not in OFF_VALUES)
    if on:
        raise refuse(Reason.UNSUPPORTED_ADAPTER, f"The adapter uses {', '.join(on)}, which does not serve.")
    if config.get("peft_type") != "LORA" or config.get("task_type") != "CAUSAL_LM":
        raise refuse(Reason.UNSUPPORTED_ADAPTER, "Only LoRA adapters of causal models serve.")
    rank, targets = config.get("r"), config.get("target_modules")
    if type(rank) is not int or not 1 <= rank <= max_rank:
        raise refuse(Reason.RANK_TOO_LARGE, f"The adapter's rank must be from 1 to {max_rank}.")
    _check_numbers(config)
    if not isinstance(targets, list) or not targets or not {layer(str(target)) for target in targets} <= TARGETS:
        raise refuse(Reason.UNSUPPORTED_TARGET, f"Adapters may change {', '.join(sorted(TARGETS))} alone.")
    return Lora(rank, frozenset(map(str, targets)))


def _check_numbers(config: Mapping[str, Any]) -> None:
    alpha, dropout = config.get("lora_alpha"), config.get("lora_dropout", 0.0)
    if not _is_number(alpha) or not 0 < alpha <= MAX_ALPHA:
        raise refuse(Reason.UNSUPPORTED_ADAPTER, f"lora_alpha must be a positive number, at most {MAX_ALPHA}.")
    if not _is_number(dropout) or not 0 <= dropout < 1:
        raise refuse(Reason.UNSUPPORTED_ADAPTER, "lora_dropout must be from 0 to below 1.")
    if type(config.get("use_rslora", False)) is not bool:
        raise refuse(Reason.UNSUPPORTED_ADAPTER, "use_rslora must be true or false.")
    beginning = config.get("init_lora_weights")
    if beginning is not None and type(beginning) is not bool and beginning not in BEGINNINGS:
        raise refuse(Reason.UNSUPPORTED_ADAPTER, "init_lora_weights names a way to begin that changes the base.")


def _is_number(value: Any) -> TypeGuard[float]:
    return type(value) in {int, float}
