"""The files of a base: safetensors, JSON and a tokenizer; never a pickle, never code."""

import json
import re
from pathlib import Path
from typing import Any

from tailor.errors import InvalidArgument, Reason

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
TOKENIZER = "tokenizer.json"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack")
KEPT = (
    "config.json",
    "generation_config.json",
    TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "NOTICE",
    INDEX,
)
# Written by a probe when the base is added; a source has no say in it.
CAPABILITIES = "capabilities.json"
UNKNOWN_LICENCE = "unknown"


def load_tokenizer(base: Path) -> Any:
    """The base's tokenizer, from local files only."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base, local_files_only=True, trust_remote_code=False)


def complete_tokenizer(base: Path) -> None:
    """Write the base's tokenizer.json, by which synthetic measures rows, if only an older form of the tokenizer is there.

    Does nothing if transformers cannot convert that form.
    """
    if not (base / TOKENIZER).exists():
        backend = getattr(load_tokenizer(base), "backend_tokenizer", None)
        if backend is not None:
            backend.save(str(base / TOKENIZER))


def refuse_code(folder: Path) -> None:
    """Raise InvalidArgument (PICKLE_REFUSED, CODE_REFUSED) if a folder contains anything that could execute."""
    for file in sorted(folder.iterdir()):
        if file.suffix in PICKLES:
            raise InvalidArgument(
                Reason.PICKLE_REFUSED, f"{file.name} may contain code. Save the model as safetensors only."
            )
    for name in ("config.json", "tokenizer_config.json"):
        if (folder / name).exists() and "auto_map" in read_json(folder / name):
            raise InvalidArgument(
                Reason.CODE_REFUSED,
                f"{name} needs the model's own code (auto_map). Only models that transformers has built in are accepted.",
            )


def refuse_links(folder: Path) -> None:
    """Raise InvalidArgument (LINK_REFUSED) if a file of a folder lies elsewhere, except in the `blobs` of a hub's cache."""
    inside = folder.resolve()
    places = [inside, inside.parent.parent / "blobs"] if inside.parent.name == "snapshots" else [inside]
    for file in sorted(folder.iterdir()):
        if file.resolve().parent not in places and (file.name in KEPT or file.suffix == ".safetensors"):
            raise InvalidArgument(
                Reason.LINK_REFUSED, f"{file.name} is a link to outside its folder. Copy the file itself there."
            )


def mask_numbers(path: str) -> str:
    """The path of a layer with `*` for numbers."""
    return re.sub(r"(?<=\.)\d+(?=\.)", "*", path)


def list_stored_layers(folder: Path) -> set[str]:
    """Paths of the layers whose weights are in a folder, with masked numbers; empty if there are no weights."""
    from safetensors import safe_open

    stored: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            stored |= {mask_numbers(name.removesuffix(".weight")) for name in tensors.keys()}  # noqa: SIM118 - not a dictionary
    return stored


def weight_files(folder: Path) -> list[Path]:
    """The files with the weights: those in the index, or the single one. Raises InvalidArgument (NOT_SAFETENSORS, MISSING_FILE)."""
    if not (folder / INDEX).exists():
        if not (folder / SINGLE).is_file():
            raise InvalidArgument(
                Reason.NOT_SAFETENSORS, f"There is neither {SINGLE} nor {INDEX}. Save the model as safetensors."
            )
        return [folder / SINGLE]
    names = sorted(set(read_weight_map(folder).values()))
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise InvalidArgument(
                Reason.NOT_SAFETENSORS, f"{INDEX} names something other than a safetensors file in its folder."
            )
        if not (folder / name).is_file():
            raise InvalidArgument(Reason.MISSING_FILE, f"{INDEX} names {name}, which is missing.")
    return [folder / name for name in names]


def read_weight_map(folder: Path) -> dict[str, str]:
    """The file of each tensor, by the index; empty if it has none."""
    weight_map = read_json(folder / INDEX).get("weight_map")
    return {str(name): str(file) for name, file in weight_map.items()} if isinstance(weight_map, dict) else {}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises InvalidArgument (MISSING_FILE)."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise InvalidArgument(Reason.MISSING_FILE, f"{path.name} is missing or not JSON.") from None
    return value if isinstance(value, dict) else {}


def write_precision(path: Path) -> None:
    """Set `dtype` in a config.json to bf16, the precision of every stored base, so that readers load no more than that."""
    config = {name: value for name, value in read_json(path).items() if name != "torch_dtype"}
    path.write_text(json.dumps({**config, "dtype": "bfloat16"}, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_licence(folder: Path) -> str:
    """The licence in a model's card; `unknown` if there is none."""
    card = folder / "README.md"
    if not card.exists():
        return UNKNOWN_LICENCE
    text = card.read_text(encoding="utf-8", errors="replace")
    # If `license` is `other`, `license_name` has the name.
    for field in ("license_name", "license", "licence"):
        match = re.search(rf"^{field}:\s*[\"']?([\w.+-]+)[\"']?\s*$", text, re.MULTILINE)
        if match and match[1] != "other":
            return match[1]
    return UNKNOWN_LICENCE
