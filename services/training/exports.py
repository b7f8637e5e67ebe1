"""An adapter as a folder that peft, transformers and vLLM load elsewhere: as it is, or merged into its base.

A fresh process reads the folder back and computes the adapter's probes before any of its files leaves.
"""

import hashlib
import json
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.training.adapters.manifests import find_adapter
from services.training.bases.files import CAPABILITIES, INDEX, KEPT
from services.training.bases.store import StoredBases
from services.training.domain import Base, ChatCapabilities
from services.training.worker.reload_check import Reload, reload_in_fresh_process, verify_exported
from tailor.storage.protocol import ObjectStore

CARD, FILES = "README.md", "files"
HUB = "hub:"
# The values of vLLM's --max-lora-rank.
RANKS = (8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Export:
    """An adapter, its manifest and its base; `whole` if all weights are written. `generation` is 0 if it is unknown in which it serves."""

    digest: str
    adapter: Mapping[str, Any]
    base: Base
    whole: bool
    generation: int = 0


@dataclass(frozen=True)
class Exporter:
    """Prepares one adapter at a time, since that takes the memory of a model, in `scratch`, which it empties first. Thread-safe."""

    store: ObjectStore
    bases: StoredBases
    scratch: Path
    reload: Reload = reload_in_fresh_process
    preparing: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)

    def export(self, digest: str, *, merged: bool = False, generation: int = 0) -> Iterator[str | Path]:
        """Yield readable steps, then the folder, which is deleted afterwards. Blocks for as long as merging and checking take.

        Raises InvalidArgument (NOT_A_POLICY), FailedPrecondition (BASE_CHANGED, CORRUPT_OBJECT, ADAPTER_DOES_NOT_LOAD, ADAPTER_DIFFERS),
        Unavailable (DISK_FULL), and NotFound (UNKNOWN_ADAPTER) if the adapter's weights are erased meanwhile.
        """
        self.scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            with self.preparing:
                yield f"reading {digest}"
                adapter, base = self.bases.download_policy(digest, Path(folder))
                whole = merged or adapter["weights"] == "full"
                yield from self._prepare(Export(digest, adapter, base, whole, generation), Path(folder))
            find_adapter(self.store, digest)
            yield Path(folder, FILES)

    def _prepare(self, export: Export, folder: Path) -> Iterator[str]:
        """Write and check `files`, next to the downloaded `adapter` and `base`."""
        files, trained = folder / FILES, (folder / "adapter" / CARD).read_text(encoding="utf-8")
        if export.whole:
            yield "writing the whole model"
            self.bases.merge(export.digest, files)
        else:
            _write_adapter(export.base, folder)
        yield "reading it back in a fresh process"
        base = files if export.whole else folder / "base"
        difference = verify_exported(base, files, export.adapter["probes"], self.reload)
        yield f"it differs from the trained adapter by {difference:.4f} nats per token"
        yield from find_remarks(export)
        for name in (CAPABILITIES, CARD):
            (files / name).unlink(missing_ok=True)
        (files / CARD).write_text(to_card(export, trained, list_digests(files)), encoding="utf-8")


def _write_adapter(base: Base, folder: Path) -> None:
    """Make the downloaded adapter the PEFT folder, with the base's name on its hub, its tokenizer and its chat template."""
    files = (folder / "adapter").rename(folder / FILES)
    for name in set(KEPT) - {"config.json", INDEX}:
        if (folder / "base" / name).exists():
            shutil.copyfile(folder / "base" / name, files / name)
    path = files / "adapter_config.json"
    name, revision = find_origin(base)
    named = json.loads(path.read_bytes()) | {"base_model_name_or_path": name, "revision": revision or None}
    path.write_text(json.dumps(named, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def find_origin(base: Base) -> tuple[str, str]:
    """The base's name and revision on its hub, or its name here and no revision."""
    name, _, revision = base.source.removeprefix(HUB).partition("@")
    return (name, revision) if base.source.startswith(HUB) else (base.name, "")


def list_digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of a folder."""
    digests = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def find_remarks(export: Export) -> Iterator[str]:
    """Why an adapter can be put on no model of a hub, or be loaded by no vLLM, and what can be exported instead."""
    base = export.base
    causes = (
        (not base.source.startswith(HUB), f"its base comes from {base.source.partition(':')[0]}, not from a hub"),
        (base.left_out_parameters, "it was trained on the text part of the hub's model only"),
        (base.quantisation, f"it was trained on the hub's {base.quantisation} weights written in bf16"),
    )
    for because in [] if export.whole else [text for holds, text in causes if holds]:
        yield f"The adapter does not fit a model of a hub: {because}. Export it with `--merged`."
    if (reason := export.adapter.get("not_served_because")) and not export.whole:
        yield f"vLLM does not load it as an adapter: {reason}. Export it with `--merged`."


def to_card(export: Export, trained: str, digests: Mapping[str, str]) -> str:
    """The model card: what training wrote of the adapter, then what the folder is, how it is loaded, and the digests of its files."""
    name, revision = find_origin(export.base)
    chat = export.base.capabilities.chat if export.base.capabilities else ChatCapabilities()
    facts = [
        f"{'the whole model, in bf16' if export.whole else 'an adapter for peft'}, of adapter `{export.digest}`",
        *([f"served as generation {export.generation} of its specialist"] if export.generation else []),
        f"source of its base: `{export.base.source}`",
        f"answers end with `{chat.end}`, tokens {', '.join(map(str, chat.ends)) or 'unknown'}",
        "prompts are rendered by the chat template of this folder, which is the one that was trained with",
        *find_remarks(export),
    ]
    return "\n".join(
        [
            f"---\nlibrary_name: {'transformers' if export.whole else 'peft'}",
            *([f"base_model: {name}"] if revision else []),
            f"---\n{trained}\n## What is in this folder?\n",
            *(f"- {fact}" for fact in facts),
            "\n## How do I load it?\n\nReplace FOLDER by the path of this folder.\n",
            *_explain_loading(export, name if revision else f"PATH/TO/{name}", revision),
            "\n## Which files are there?\n\n| file | SHA-256 |\n|---|---|",
            *(f"| {file} | `{digest}` |" for file, digest in digests.items()),
            "",
        ]
    )


def _explain_loading(export: Export, base: str, revision: str) -> Iterator[str]:
    end = 'tokenizer = AutoTokenizer.from_pretrained("FOLDER")\n```\n'
    yield "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer"
    if export.whole:
        yield f'\nmodel = AutoModelForCausalLM.from_pretrained("FOLDER", dtype="bfloat16")\n{end}\nvLLM: `vllm serve FOLDER`'
        return
    pinned = f', revision="{revision}"' if revision else ""
    yield f'from peft import PeftModel\n\nbase = AutoModelForCausalLM.from_pretrained("{base}"{pinned}, dtype="bfloat16")'
    yield f'model = PeftModel.from_pretrained(base, "FOLDER")\n{end}'
    if not export.adapter.get("not_served_because"):
        pinned = f" --revision {revision}" if revision else ""
        rank = next(rank for rank in RANKS if rank >= export.adapter["recipe"]["adapter"]["r"])
        loras = f"--enable-lora --max-lora-rank {rank} --lora-modules {export.adapter['specialist']}=FOLDER"
        yield f"vLLM: `vllm serve {base}{pinned} --tokenizer FOLDER {loras}`"
