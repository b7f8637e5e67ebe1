"""Which files make a base, and whether they do: safetensors, JSON and tokenizer, never a pickle, never code."""

import json
import re
from pathlib import Path
from typing import Any

from services.training.bases.checks import check_whole
from tailor.errors import InvalidArgument, Reason

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
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
    INDEX,
)
UNKNOWN_LICENCE = "unknown"


def refuse_code(folder: Path) -> None:
    """InvalidArgument (PICKLE_REFUSED, CODE_REFUSED) where a folder holds what could run."""
    for file in sorted(folder.iterdir()):
        if file.suffix in PICKLES:
            raise InvalidArgument(
                Reason.PICKLE_REFUSED, f"{file.name} may hold code; save the model as safetensors alone."
            )
    for name in ("config.json", "tokenizer_config.json"):
        if (folder / name).exists() and "auto_map" in read_json(folder / name):
            raise InvalidArgument(
                Reason.CODE_REFUSED,
                f"{name} asks for code of the model's own (auto_map); only built-in ones are taken.",
            )


def refuse_links(folder: Path) -> None:
    """InvalidArgument (LINK_REFUSED) where a file of a folder lies elsewhere; a hub's cache keeps those of its snapshots in `blobs`."""
    inside = folder.resolve()
    places = [inside, inside.parent.parent / "blobs"] if inside.parent.name == "snapshots" else [inside]
    for file in sorted(folder.iterdir()):
        if file.resolve().parent not in places and (file.name in KEPT or file.suffix == ".safetensors"):
            raise InvalidArgument(
                Reason.LINK_REFUSED, f"{file.name} is a link out of its folder; put the file itself there."
            )


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights: those that the index names, or the single one. InvalidArgument (NOT_SAFETENSORS, MISSING_FILE)."""
    if not (folder / INDEX).exists():
        if not (folder / SINGLE).is_file():
            raise InvalidArgument(
                Reason.NOT_SAFETENSORS, f"There is neither {SINGLE} nor {INDEX}; save the model as safetensors."
            )
        return [folder / SINGLE]
    names = sorted(set(_weight_map(folder).values()))
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise InvalidArgument(
                Reason.NOT_SAFETENSORS, f"{INDEX} names something that is no safetensors file beside it."
            )
        if not (folder / name).is_file():
            raise InvalidArgument(Reason.MISSING_FILE, f"{INDEX} names {name}, which is missing.")
    return [folder / name for name in names]


def check(folder: Path) -> int:
    """The parameters of a base; InvalidArgument where it is no whole causal model in safetensors with a chat template."""
    config = read_json(folder / "config.json")
    architectures = config.get("architectures") or []
    if not architectures or not all(str(name).endswith("ForCausalLM") for name in architectures):
        raise InvalidArgument(
            Reason.NOT_CAUSAL, "config.json names no causal language model (architectures: ...ForCausalLM)."
        )
    if "quantization_config" in config:
        raise InvalidArgument(Reason.QUANTISED, "The weights are quantised already; add the model in bf16, f16 or f32.")
    refuse_code(folder)
    described = read_json(folder / "tokenizer_config.json")
    if not described.get("chat_template") and not (folder / "chat_template.jinja").exists():
        raise InvalidArgument(
            Reason.NO_CHAT_TEMPLATE, "The tokenizer has no chat template; use an instruction-tuned model."
        )
    sizes = _sizes(folder)
    check_whole(folder, len(sizes))
    return sum(sizes.values())


def _sizes(folder: Path) -> dict[str, int]:
    """How many numbers each tensor has."""
    from safetensors import SafetensorError, safe_open

    sizes: dict[str, int] = {}
    for file in weight_files(folder):
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - not a dictionary
                    size = 1
                    for width in tensors.get_slice(name).get_shape():
                        size *= width
                    sizes[name] = size
        except SafetensorError:
            raise InvalidArgument(Reason.NOT_SAFETENSORS, f"{file.name} is not a whole safetensors file.") from None
    if (folder / INDEX).exists() and (missing := set(_weight_map(folder)) - set(sizes)):
        raise InvalidArgument(Reason.MISSING_FILE, f"{len(missing)} tensors that {INDEX} names are missing.")
    return sizes


def _weight_map(folder: Path) -> dict[str, str]:
    found = read_json(folder / INDEX).get("weight_map")
    return {str(name): str(file) for name, file in found.items()} if isinstance(found, dict) else {}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; InvalidArgument (MISSING_FILE)."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise InvalidArgument(Reason.MISSING_FILE, f"{path.name} is missing or not JSON.") from None
    return value if isinstance(value, dict) else {}


def state_precision(path: Path) -> None:
    """Let a config.json say what every base is kept in, so that whoever asks it loads no more than that."""
    config = {name: value for name, value in read_json(path).items() if name != "torch_dtype"}
    path.write_text(json.dumps({**config, "dtype": "bfloat16"}, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def licence(folder: Path) -> str:
    """The licence that a model's card states, `unknown` where it states none."""
    card = folder / "README.md"
    if not card.exists():
        return UNKNOWN_LICENCE
    text = card.read_text(encoding="utf-8", errors="replace")
    # `license: other` says nothing; the name beside it does.
    for field in ("license_name", "license", "licence"):
        match = re.search(rf"^{field}:\s*[\"']?([\w.+-]+)[\"']?\s*$", text, re.MULTILINE)
        if match and match[1] != "other":
            return match[1]
    return UNKNOWN_LICENCE
