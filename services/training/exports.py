"""An adapter as a folder that peft, transformers and vLLM load elsewhere: as it is, or merged into its base.

A fresh process reads the folder back and computes the adapter's probes before any of its files leaves.
"""

import hashlib
import json
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from services.training.adapters.child_process import disk_full
from services.training.adapters.manifests import find_adapter
from services.training.bases.files import CAPABILITIES, INDEX, KEPT
from services.training.bases.store import FILES, StoredBases
from services.training.domain import Base, ChatCapabilities
from services.training.worker.reload_check import Reload, reload_in_fresh_process, verify_exported
from tailor.errors import FailedPrecondition, Reason
from tailor.storage.protocol import ObjectStore

CARD = "README.md"
CHUNK_BYTES = 2**20
HUB = "hub:"
# The largest ranks that vLLM can be told.
RANKS = (8, 16, 32, 64, 128, 256)
REPEAT = "Nothing was exported; free some memory where training runs, and repeat the command."


@dataclass(frozen=True)
class ExportedFile:
    """One file of an exported folder."""

    name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class FileChunk:
    """The next bytes of an exported file."""

    name: str
    chunk: bytes


@dataclass(frozen=True)
class Export:
    """What is exported: an adapter by its manifest, and its base; `whole` if all weights are written.

    `trained` is the card that training wrote. `generation` is that of the specialist in which the adapter serves; 0 if it is unknown.
    """

    digest: str
    adapter: Mapping[str, Any]
    base: Base
    whole: bool
    generation: int = 0
    trained: str = ""


class Exporter:
    """Prepares one adapter at a time, since that takes the memory of a model, in `scratch`, which it empties first. Thread-safe."""

    def __init__(
        self, store: ObjectStore, bases: StoredBases, scratch: Path, reload: Reload = reload_in_fresh_process
    ) -> None:
        shutil.rmtree(scratch, ignore_errors=True)
        self._store = store
        self._bases = bases
        self._scratch = scratch
        self._reload = reload
        self._preparing = threading.Lock()

    def export(
        self, digest: str, *, merged: bool = False, generation: int = 0
    ) -> Iterator[str | list[ExportedFile] | FileChunk]:
        """Yield readable steps, then the list of files, then their bytes in chunks. Blocks for as long as merging and checking take.

        Raises InvalidArgument (NOT_A_POLICY), FailedPrecondition (BASE_CHANGED, CORRUPT_OBJECT, INVALID_MANIFEST, ADAPTER_DOES_NOT_LOAD,
        ADAPTER_DIFFERS), Unavailable (DISK_FULL), and NotFound (UNKNOWN_ADAPTER) if the adapter's weights are erased meanwhile.
        """
        adapter, base = self._bases.find_policy(digest)
        if not adapter.get("probes"):
            raise FailedPrecondition(
                Reason.INVALID_MANIFEST, "The adapter has no probes, by which an export is checked. Train it again."
            )
        export = Export(digest, adapter, base, merged or adapter["weights"] == "full", generation)
        self._scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            with self._preparing:
                yield from self._prepare(export, Path(folder))
            find_adapter(self._store, digest)
            paths = sorted(path for path in Path(folder, FILES).iterdir() if path.name != CAPABILITIES)
            yield [describe_file(path) for path in paths]
            yield from read_chunks(paths)

    def _prepare(self, export: Export, folder: Path) -> Iterator[str]:
        """Write and check the folder `files` within an empty one."""
        self._check_space(export)
        yield f"reading the adapter and its base {export.base.name}"
        self._bases.download_policy(export.adapter, export.base, folder)
        written = folder / "adapter" / CARD
        trained = written.read_text(encoding="utf-8") if written.exists() else f"# {export.adapter['specialist']}\n"
        if export.whole:
            yield "writing the whole model"
            self._bases.merge(export.digest, folder)
        else:
            _write_adapter(export.base, folder)
        yield "reading it back in a fresh process"
        weights = folder / FILES
        base, kind = (weights, "none") if export.whole else (folder / "base", "lora")
        difference = verify_exported(base, weights, export.adapter["probes"], kind=kind, reload=self._reload)
        yield f"it differs from the trained adapter by {difference:.4f} nats per token"
        if not export.whole and (mismatch := explain_mismatch(export.base)):
            yield mismatch
        files = [describe_file(path) for path in sorted(weights.iterdir()) if path.name not in (CAPABILITIES, CARD)]
        (weights / CARD).write_text(to_card(replace(export, trained=trained), files), encoding="utf-8")

    def _check_space(self, export: Export) -> None:
        """Raise Unavailable (DISK_FULL) if the adapter, its base, and the two merged do not fit the disk."""
        needed = sum(file["size_bytes"] for file in export.adapter["files"]) + export.base.size_bytes * (
            1 + export.whole
        )
        if shutil.disk_usage(self._scratch).free < needed:
            raise disk_full()


def _write_adapter(base: Base, folder: Path) -> None:
    """Make the downloaded adapter the PEFT folder, with the base's name on its hub, its tokenizer and its chat template."""
    files = (folder / "adapter").rename(folder / FILES)
    for name in set(KEPT) - {"config.json", INDEX}:
        if (folder / "base" / name).exists():
            shutil.copyfile(folder / "base" / name, files / name)
    path = files / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    name, revision = find_origin(base)
    named = {**config, "base_model_name_or_path": name, "revision": revision or None}
    path.write_text(json.dumps(named, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def find_origin(base: Base) -> tuple[str, str]:
    """The base's name and revision on its hub, or its name here and no revision."""
    name, _, revision = base.source.removeprefix(HUB).partition("@")
    return (name, revision) if base.source.startswith(HUB) else (base.name, "")


def explain_mismatch(base: Base) -> str:
    """Why the adapter cannot be put on a model of a hub, and what can be exported instead; empty if it can."""
    if not base.source.startswith(HUB):
        because = f"its base comes from {base.source.partition(':')[0] or 'elsewhere'}, not from a hub"
    elif base.left_out_parameters:
        because = "it was trained on the text part of the hub's model only"
    elif base.quantisation:
        because = f"it was trained on the hub's {base.quantisation} weights written in bf16"
    else:
        return ""
    return f"The adapter does not fit a model of a hub: {because}. Export it with `--merged`, or take the base's own files along."


def describe_file(path: Path) -> ExportedFile:
    """A file's entry in the list."""
    with path.open("rb") as file:
        return ExportedFile(path.name, hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)


def read_chunks(paths: Iterable[Path]) -> Iterator[FileChunk]:
    """The bytes of the files, in order."""
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield FileChunk(path.name, chunk)


def to_card(export: Export, files: Iterable[ExportedFile]) -> str:
    """The model card: what training wrote of the adapter, then what the folder is, how it is loaded, and the digests of its files."""
    base = export.base
    name, revision = find_origin(base)
    chat = base.capabilities.chat if base.capabilities else ChatCapabilities()
    facts = [
        f"the {'whole model, in bf16' if export.whole else 'adapter, in the format of peft'}",
        f"adapter `{export.digest}`" + (f", generation {export.generation}" if export.generation else ""),
        f"source of its base: `{base.source}`",
        f"answers end with `{chat.end}`, tokens {', '.join(map(str, chat.ends)) or 'unknown'}",
        "prompts are rendered by the chat template of this folder, which is the one that was trained with",
        *filter(None, [] if export.whole else [explain_mismatch(base)]),
    ]
    head = {"library_name": "transformers" if export.whole else "peft", **({"base_model": name} if revision else {})}
    return "\n".join(
        [
            "---",
            *(f"{field}: {value}" for field, value in head.items()),
            f"---\n{export.trained}\n## What is in this folder?\n",
            *(f"- {fact}" for fact in facts),
            "\n## How do I load it?\n\nReplace FOLDER by the path of this folder.\n",
            *_explain_loading(export, name if revision else f"PATH/TO/{name}", revision),
            "\n## Which files are there?\n\n| file | SHA-256 |\n|---|---|",
            *(f"| {file.name} | `{file.sha256}` |" for file in files),
            "",
        ]
    )


def _explain_loading(export: Export, name: str, revision: str) -> Iterator[str]:
    yield "```python"
    yield "from transformers import AutoModelForCausalLM, AutoTokenizer"
    if export.whole:
        yield '\nmodel = AutoModelForCausalLM.from_pretrained("FOLDER", dtype="bfloat16")'
    else:
        pinned = f', revision="{revision}"' if revision else ""
        yield "from peft import PeftModel"
        yield f'\nbase = AutoModelForCausalLM.from_pretrained("{name}"{pinned}, dtype="bfloat16")'
        yield 'model = PeftModel.from_pretrained(base, "FOLDER")'
    yield 'tokenizer = AutoTokenizer.from_pretrained("FOLDER")\n```\n'
    if export.whole:
        yield "vLLM: `vllm serve FOLDER`"
    elif reason := export.adapter.get("not_served_because"):
        yield f"vLLM does not load it as an adapter: {reason}. Export it with `--merged`."
    else:
        pinned = f" --revision {revision}" if revision else ""
        rank = next(rank for rank in RANKS if rank >= export.adapter["recipe"]["adapter"]["r"])
        loras = f"--enable-lora --max-lora-rank {rank} --lora-modules {export.adapter['specialist']}=FOLDER"
        yield f"vLLM: `vllm serve {name}{pinned} --tokenizer FOLDER {loras}`"
