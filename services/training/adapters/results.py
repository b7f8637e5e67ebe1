"""A run's result: safetensors, configuration and a card, stored by digest, the manifest last."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.training.recipe import Recipe
from services.training.spec import WorkerSpec
from tailor.storage.buckets import MODELS
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref

KEPT_SUFFIXES = (".safetensors", ".json", ".md")


@dataclass(frozen=True)
class Figures:
    """What a run was like."""

    steps: int
    rows: int
    tokens: int
    first_loss: float
    last_loss: float
    tokens_per_second: float
    seconds: float


def save_weights(model: Any, tokenizer: Any, spec: WorkerSpec, recipe: Recipe, folder: Path) -> None:
    """Write the adapter, or all weights in bf16, as safetensors."""
    folder.mkdir(parents=True)
    if recipe.adapter.kind == "none":
        import torch

        model.to(torch.bfloat16).save_pretrained(folder, safe_serialization=True)
        tokenizer.save_pretrained(folder)
        return
    model.save_pretrained(folder, safe_serialization=True)
    # PEFT notes where the base lay on this machine; its name is what others can use.
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "base_model_name_or_path": spec.base}, indent=2, sort_keys=True), "utf-8")


def write_card(spec: WorkerSpec, recipe: Recipe, figures: Figures, licence: str, folder: Path) -> None:
    """Write the card, `README.md`."""
    trained = "all weights" if recipe.adapter.kind == "none" else f"{recipe.adapter.kind}, rank {recipe.adapter.r}"
    folder.joinpath("README.md").write_text(
        f"""# {spec.specialist}

Trained by Tailor for the specialist `{spec.specialist}` on its house's own, anonymised documents.

| | |
|---|---|
| base | {spec.base} (`{spec.base_digest}`), licence {licence} |
| dataset | `{spec.dataset_digest}` |
| parent | none |
| run | {spec.run_id} |
| recipe | {spec.recipe}: {recipe.method}, {trained}, learning rate {recipe.optimizer.learning_rate:g}, {recipe.precision} |
| trained | {figures.steps} steps, {figures.rows} rows |
| loss | {figures.first_loss:.3f} at first, {figures.last_loss:.3f} at last |
| cost | {figures.seconds:.0f} s, {figures.tokens_per_second:.0f} tokens/s |
""",
        encoding="utf-8",
    )


def store(store_: ObjectStore, spec: WorkerSpec, recipe: Recipe, probes: dict[str, float], folder: Path) -> Ref:
    """Store files, then the manifest; the manifest's reference, whose digest names the adapter."""
    entries = []
    for path in sorted(folder.iterdir()):
        if path.suffix not in KEPT_SUFFIXES and path.name != "chat_template.jinja":
            continue
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        key = f"adapters/files/{digest}"
        store_.put_file(MODELS, key, path)
        entries.append({"path": path.name, "sha256": digest, "size_bytes": path.stat().st_size, "key": key})
    manifest = {
        "kind": "policy",
        "weights": "full" if recipe.adapter.kind == "none" else "adapter",
        "specialist": spec.specialist,
        "run_id": spec.run_id,
        "dataset_digest": spec.dataset_digest,
        "base": spec.base,
        "base_digest": spec.base_digest,
        "parent_digest": "",
        "recipe": {"name": spec.recipe, **recipe.model_dump(mode="json")},
        "probes": probes,
        "files": entries,
    }
    data = json.dumps(manifest, sort_keys=True, indent=2).encode()
    digest = hashlib.sha256(data).hexdigest()
    return store_.put(MODELS, f"adapters/{digest}/manifest.json", data, "application/json")
