"""Reads an adapter's manifest and configuration, and refuses unsafe ones, before anything is loaded."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from services.inference.domain import MAX_PROBES, Probe
from tailor.errors import FailedPrecondition, Reason
from tailor.layer_paths import has_end

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
CARD = "README.md"
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
SAFE_KEY = re.compile(r"[A-Za-z0-9._/-]{1,512}")
SHA256 = re.compile(r"[0-9a-f]{64}")
MAX_MANIFEST_BYTES = 1024 * 1024
MAX_ALPHA = 2**16
TARGET = re.compile(r"[A-Za-z0-9_.]{1,256}")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Keys of peft's configuration that are read here, or that change nothing at inference. Every other known key must be off.
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
# Initialisations that leave the base unchanged; the others (PiSSA, OLoRA, LoftQ, CorDA, LoRA-GA) train against a changed base.
INITIALISATIONS = ("gaussian", "orthogonal", "eva")


@dataclass(frozen=True)
class ManifestFile:
    """One file of a manifest; `key` is its place in the models bucket."""

    path: str
    sha256: str
    size_bytes: int
    key: str


@dataclass(frozen=True)
class Lora:
    """Rank and targets of an adapter. Targets are names of layers or whole paths, as peft writes them. B A is added times `scaling`."""

    rank: int
    targets: frozenset[str]
    scaling: float

    def reaches(self, module: str) -> bool:
        """True if the adapter targets the module."""
        return has_end(module, *self.targets)


@dataclass(frozen=True)
class AdaptedLayers:
    """The layers of a base that adapters may change: ends of their paths, and the largest rank. If the base is served without adapters,
    there are none, and `refusal` says why.
    """

    targets: tuple[str, ...]
    max_rank: int
    refusal: str = ""


def refuse(reason: Reason, message: str) -> FailedPrecondition:
    return FailedPrecondition(reason, message)


def read_manifest(data: bytes) -> Mapping[str, Any]:
    """Parse a manifest. Raises FailedPrecondition (INVALID_MANIFEST)."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise refuse(Reason.INVALID_MANIFEST, "The manifest is too large.")
    return read_object(data, Reason.INVALID_MANIFEST, "The manifest")


def read_object(data: bytes, reason: Reason, what: str) -> dict[str, Any]:
    """Parse a JSON object. Raises FailedPrecondition if it is not one, too deep to parse, or has a key twice."""
    try:
        value = json.loads(data, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise refuse(reason, f"{what} must be JSON without duplicate keys.") from None
    if not isinstance(value, dict):
        raise refuse(reason, f"{what} must be a JSON object.")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        raise ValueError
    return unique


def read_files(manifest: Mapping[str, Any]) -> list[ManifestFile]:
    """The manifest's files. Raises FailedPrecondition for a name with a path in it, or a key without the file's digest."""
    try:
        files = [
            ManifestFile(str(f["path"]), str(f["sha256"]), int(f["size_bytes"]), str(f["key"]))
            for f in manifest["files"]
        ]
    except (KeyError, TypeError, ValueError, OverflowError):
        raise refuse(
            Reason.INVALID_MANIFEST, "Every file of the manifest needs path, sha256, size_bytes and key."
        ) from None
    for file in files:
        if not SAFE_NAME.fullmatch(file.path):
            raise refuse(
                Reason.UNSAFE_NAME,
                "A file name of the manifest is unsafe: it may have letters, digits, dots, dashes and underscores only.",
            )
        if not SHA256.fullmatch(file.sha256) or file.sha256 not in file.key or ".." in file.key:
            raise refuse(Reason.INVALID_MANIFEST, "A file's key must contain its sha256.")
        # The object store's refusal of a key would look like an outage, for which inference waits.
        if not SAFE_KEY.fullmatch(file.key):
            raise refuse(Reason.INVALID_MANIFEST, "A file's key is unsafe.")
    if len({file.path for file in files}) != len(files):
        raise refuse(Reason.INVALID_MANIFEST, "Two files of the manifest have the same name.")
    return files


def check_adapter_manifest(manifest: Mapping[str, Any], base_digest: str) -> list[ManifestFile]:
    """The adapter's files. Raises FailedPrecondition unless it is a policy of this base with the expected files."""
    if manifest.get("kind") != "policy":
        raise refuse(Reason.WRONG_KIND, "Only adapters of kind `policy` can serve.")
    if manifest.get("base_digest") != base_digest:
        raise refuse(Reason.WRONG_BASE, "The adapter was trained on another base.")
    if manifest.get("not_served_because"):
        raise refuse(Reason.UNSUPPORTED_ADAPTER, "No engine loads this result. Add it as a base, and serve that.")
    files = read_files(manifest)
    names = {file.path for file in files}
    if not {WEIGHTS, CONFIG} <= names or names - {WEIGHTS, CONFIG, CARD}:
        raise refuse(Reason.UNEXPECTED_FILE, f"An adapter must consist of {WEIGHTS}, {CONFIG} and, optionally, {CARD}.")
    return files


def check_sizes(files: Sequence[ManifestFile], max_weight_bytes: int) -> None:
    """Raise FailedPrecondition (TOO_LARGE) before fetching files that are larger than any adapter of the base."""
    for file in files:
        if not 0 < file.size_bytes <= (max_weight_bytes if file.path == WEIGHTS else MAX_MANIFEST_BYTES):
            raise refuse(Reason.TOO_LARGE, "A file is empty, or larger than any adapter of this base.")


def read_probes(manifest: Mapping[str, Any]) -> list[Probe]:
    """The trainer's probe rows with its measurements; empty if the manifest has none. Raises FailedPrecondition (INVALID_MANIFEST)."""
    entries = manifest.get("probes")
    if not isinstance(entries, list):
        return []
    try:
        probes = [Probe(tuple(e["tokens"]), e["prompt_length"], float(e["log_probability"])) for e in entries]
    except (KeyError, TypeError, ValueError, OverflowError):
        raise refuse(
            Reason.INVALID_MANIFEST, "Every probe row needs tokens, prompt_length and log_probability."
        ) from None
    if len(probes) > MAX_PROBES or not all(_is_valid(probe) for probe in probes):
        raise refuse(
            Reason.INVALID_MANIFEST,
            f"There may be at most {MAX_PROBES} probe rows, each with a prompt and an answer in tokens.",
        )
    return probes


def _is_valid(probe: Probe) -> bool:
    numbers = (probe.prompt_length, *probe.tokens)
    return all(type(number) is int for number in numbers) and 1 <= probe.prompt_length < len(probe.tokens)


def read_adapted_layers(data: bytes) -> AdaptedLayers:
    """The adapted layers, by the `capabilities.json` of a base. Raises FailedPrecondition (INVALID_MANIFEST)."""
    found = read_object(data, Reason.INVALID_MANIFEST, "The base's capabilities.json")
    targets, max_rank, refusal = (found.get(name) for name in ("targets", "max_rank", "not_served_because"))
    named = isinstance(targets, list) and all(isinstance(name, str) and TARGET.fullmatch(name) for name in targets)
    if not named or type(max_rank) is not int or not isinstance(refusal, str):
        raise refuse(
            Reason.INVALID_MANIFEST,
            "The base's capabilities.json does not say which layers adapters change. Add the base under another name.",
        )
    return AdaptedLayers(() if refusal or not targets else tuple(targets), max_rank, refusal)


def check_config(data: bytes, layers: AdaptedLayers) -> Lora:
    """Parse the configuration. Raises FailedPrecondition unless it is plain LoRA (Hu et al. 2021, or rank-stabilised) on adapted layers."""
    if layers.refusal:
        raise refuse(Reason.UNSUPPORTED_ADAPTER, layers.refusal)
    if len(data) > MAX_MANIFEST_BYTES:
        raise refuse(Reason.INVALID_CONFIG, "The adapter's configuration is too large.")
    config = read_object(data, Reason.INVALID_CONFIG, "The adapter's configuration")
    unknown = set(config) - FREE_KEYS - OFF_KEYS
    if unknown:
        raise refuse(Reason.UNKNOWN_CONFIG_KEY, f"The adapter's configuration has {len(unknown)} unknown keys.")
    features = sorted(key for key in OFF_KEYS & set(config) if config[key] not in OFF_VALUES)
    if features:
        raise refuse(Reason.UNSUPPORTED_ADAPTER, f"The adapter uses {', '.join(features)}, which is not supported.")
    if config.get("peft_type") != "LORA" or config.get("task_type") != "CAUSAL_LM":
        raise refuse(Reason.UNSUPPORTED_ADAPTER, "Only LoRA adapters of causal language models can serve.")
    rank, targets = config.get("r"), config.get("target_modules")
    if type(rank) is not int or not 1 <= rank <= layers.max_rank:
        raise refuse(Reason.RANK_TOO_LARGE, f"The adapter's rank must be from 1 to {layers.max_rank}.")
    _check_numbers(config)
    if not isinstance(targets, list) or not targets or not all(has_end(str(name), *layers.targets) for name in targets):
        raise refuse(Reason.UNSUPPORTED_TARGET, f"Adapters may target {', '.join(sorted(layers.targets))} only.")
    # Rank-stabilised LoRA: Kalajdzievski 2023.
    scaling = float(config["lora_alpha"]) / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return Lora(rank, frozenset(map(str, targets)), scaling)


def _check_numbers(config: Mapping[str, Any]) -> None:
    alpha, dropout = config.get("lora_alpha"), config.get("lora_dropout", 0.0)
    if not _is_number(alpha) or not 0 < alpha <= MAX_ALPHA:
        raise refuse(Reason.UNSUPPORTED_ADAPTER, f"lora_alpha must be a positive number, at most {MAX_ALPHA}.")
    if not _is_number(dropout) or not 0 <= dropout < 1:
        raise refuse(Reason.UNSUPPORTED_ADAPTER, "lora_dropout must be at least 0 and below 1.")
    if type(config.get("use_rslora", False)) is not bool:
        raise refuse(Reason.UNSUPPORTED_ADAPTER, "use_rslora must be true or false.")
    initialisation = config.get("init_lora_weights")
    if initialisation is not None and type(initialisation) is not bool and initialisation not in INITIALISATIONS:
        raise refuse(
            Reason.UNSUPPORTED_ADAPTER, "init_lora_weights must not name an initialisation that changes the base."
        )


def _is_number(value: Any) -> TypeGuard[float]:
    return type(value) in {int, float}
