"""The result of a stage: safetensors, configuration and a card, stored by digest; the manifest last."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.training.bases.capabilities import find_unserved
from services.training.domain import Capabilities
from services.training.recipe import Recipe
from services.training.spec import WorkerSpec
from tailor.api.events.v1 import models_pb2
from tailor.storage.buckets import MODELS
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref

KEPT_SUFFIXES = (".safetensors", ".json", ".md")


def save_weights(model: Any, tokenizer: Any, spec: WorkerSpec, recipe: Recipe, folder: Path) -> None:
    """Write the adapter, or all weights in bf16, as safetensors into a new folder."""
    folder.mkdir(parents=True)
    if recipe.adapter.kind == "none":
        import torch

        model.to(torch.bfloat16).save_pretrained(folder, safe_serialization=True)
        tokenizer.save_pretrained(folder)
        return
    model.save_pretrained(folder, safe_serialization=True, selected_adapters=["default"])
    # PEFT writes the base's path on this machine; others need its name.
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "base_model_name_or_path": spec.base}, indent=2, sort_keys=True), "utf-8")


def not_served_because(kind: str, recipe: Recipe, capabilities: Capabilities) -> str:
    """Why inference cannot load such an adapter of a base with these capabilities; empty if it can."""
    if kind == "reward":
        return "a reward adapter scores answers and cannot write any"
    if recipe.adapter.kind == "none":
        return "a model with all weights is not an adapter; add it as a base with the source adapter:DIGEST"
    if recipe.adapter.use_dora:
        return "DoRA depends on the norm of the base's weights; add it merged, as a base with the source adapter:DIGEST"
    return "; ".join(find_unserved(capabilities, recipe.adapter.r, capabilities.max_rank).values())


def write_card(
    spec: WorkerSpec,
    recipe: Recipe,
    figures: models_pb2.AdapterTrained,
    folder: Path,
    *,
    kind: str,
    licence: str,
    unserved: str,
) -> None:
    """Write the card, `README.md`. `unserved` is why inference cannot load the result, or empty."""
    shape = "all weights" if recipe.adapter.kind == "none" else f"{recipe.adapter.kind}, rank {recipe.adapter.r}"
    scores = ", ".join(f"{name} {value:.4g}" for name, value in sorted(figures.metrics.items()))
    folder.joinpath("README.md").write_text(
        f"""# {spec.specialist}

Trained by Tailor for the specialist `{spec.specialist}` on a company's own, anonymised documents.

| | |
|---|---|
| kind | {kind} |
| base | {spec.base} (`{spec.base_digest}`), licence {licence} |
| dataset | `{spec.dataset_digest}` |
| parent | {f"`{spec.parent.sha256}`" if spec.parent else "none"} |
| run | {spec.run_id}, stage {spec.stage + 1} of {spec.stages} |
| recipe | {spec.recipe}: {recipe.method}, {shape}, learning rate {recipe.optimizer.learning_rate:g}, {recipe.precision} |
| trained | {figures.steps} steps, {figures.rows} rows, {figures.tokens} tokens{_describe_remarks(figures)} |
| loss | first {figures.first_loss:.3f}, last {figures.last_loss:.3f} |
| scores | {scores or "none: the dataset has no held-out rows"} |
| serves | {f"no: {unserved}" if unserved else "yes"} |
| cost | {_describe_cost(spec, figures)} |
""",
        encoding="utf-8",
    )


def _describe_remarks(figures: models_pb2.AdapterTrained) -> str:
    remarks = ""
    if figures.rows_skipped:
        remarks += f"; {figures.rows_skipped} rows left out, longer than the recipe or the base allows, or unfit for its chat template"
    if figures.stopped_because:
        remarks += f"; the weights are those of step {figures.metrics['kept_step']:.0f}: {figures.stopped_because}"
    return remarks


def _describe_cost(spec: WorkerSpec, figures: models_pb2.AdapterTrained) -> str:
    cost = f"{figures.seconds:.0f} s, {figures.tokens_per_second:.0f} tokens/s, peak {figures.memory_bytes / 2**20:.0f} MiB"
    if not spec.hourly_price:
        return cost
    price = figures.seconds / 3600 * spec.hourly_price
    return f"{cost}; {price:.2f} {spec.currency} at {spec.hourly_price:.2f} {spec.currency} per hour"


@dataclass(frozen=True)
class StoredResult:
    """The manifest of an adapter, and the bytes of all its files."""

    manifest: Ref
    size_bytes: int


def store_files(store: ObjectStore, folder: Path) -> list[dict[str, Any]]:
    """Store the folder's files by digest. Returns their entries in the manifest."""
    entries = []
    for path in sorted(folder.iterdir()):
        if path.suffix not in KEPT_SUFFIXES and path.name != "chat_template.jinja":
            continue
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        key = f"adapters/files/{digest}"
        store.put_file(MODELS, key, path)
        entries.append({"path": path.name, "sha256": digest, "size_bytes": path.stat().st_size, "key": key})
    return entries


def store_result(
    store: ObjectStore,
    spec: WorkerSpec,
    recipe: Recipe,
    folder: Path,
    *,
    kind: str,
    unserved: str,
    figures: models_pb2.AdapterTrained,
    probes: list[dict[str, Any]],
) -> StoredResult:
    """Store the files, then the manifest, whose digest names the adapter. Idempotent."""
    files = store_files(store, folder)
    manifest = {
        "kind": kind,
        "weights": "full" if recipe.adapter.kind == "none" else "adapter",
        "not_served_because": unserved,
        "specialist": spec.specialist,
        "run_id": spec.run_id,
        "stage": spec.stage,
        "dataset_digest": spec.dataset_digest,
        "base": spec.base,
        "base_digest": spec.base_digest,
        "parent_digest": spec.parent.sha256 if spec.parent else "",
        "recipe": {"name": spec.recipe, **recipe.model_dump(mode="json")},
        "metrics": dict(figures.metrics),
        "stopped_because": figures.stopped_because,
        "rows": figures.rows,
        "rows_skipped": figures.rows_skipped,
        "probes": probes,
        "files": files,
    }
    data = json.dumps(manifest, sort_keys=True, indent=2).encode()
    digest = hashlib.sha256(data).hexdigest()
    ref = store.put(MODELS, f"adapters/{digest}/manifest.json", data, "application/json")
    return StoredResult(ref, len(data) + sum(file["size_bytes"] for file in files))
