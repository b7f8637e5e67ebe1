"""A worker in two processes: it learns the same as one process, and if one dies, both end and the run resumes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.training.domain import RETRIABLE_EXIT, Job
from services.training.recipe import Recipe
from services.training.spec import to_json
from tailor.storage.buckets import MODELS
from tests.integration.test_training_worker import House, built, house, job, tiny, weights
from tests.integration.training_house import recipe
from tests.integration.training_worker import RELOAD_HERE
from tests.unit.training.stores import FileStore
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
WORKER = ROOT / "tests" / "integration" / "training_worker.py"
TORCHRUN = [
    "-m",
    "services.training.launchers.torchrun",
    "--standalone",
    "--nproc-per-node=2",
    "--monitor-interval=0.1",
]
__all__ = ["built", "house", "tiny"]


class Started:
    """A worker in one or two processes, with its reports."""

    def __init__(self, house: House, work: Job, folder: Path, processes: int, *options: str) -> None:
        folder.mkdir(exist_ok=True)
        spec, self.reports = folder / "spec.json", folder / "reports"
        spec.write_text(to_json(work))
        arguments = [str(WORKER), str(spec), str(house.store.root), str(self.reports), str(folder / "work"), *options]
        self.process = subprocess.Popen(
            [sys.executable, *(TORCHRUN if processes == 2 else []), *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            stdout=subprocess.DEVNULL,
        )

    def reports_of(self, what: str) -> list[dict[str, Any]]:
        lines = self.reports.read_text().splitlines() if self.reports.exists() else []
        reports = [json.loads(line) for line in lines if line.endswith("}")]
        return [report[what] for report in reports if what in report]

    def losses(self) -> dict[int, float]:
        return {
            report["step"]: report["loss"] for report in self.reports_of("progress") if report["phase"] == "training"
        }

    def wait_for_step(self, step: int) -> None:
        def has_done_it() -> bool:
            done = max(self.losses(), default=0) >= step
            assert done or self.process.poll() is None, "the worker ended early"
            return done

        wait_until(has_done_it, 240, f"step {step}")

    def end(self) -> int:
        return self.process.wait(1200)

    def ranks(self) -> list[int]:
        """Process ids, by rank."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        environments = {int(pid): Path(f"/proc/{pid}/environ").read_bytes() for pid in children}
        ranks = {pid: re.search(rb"\0RANK=(\d+)", text) for pid, text in environments.items()}
        return [pid for _, pid in sorted((int(rank[1]), pid) for pid, rank in ranks.items() if rank)]


def adapter(house: House, worker: Started) -> bytes:
    (trained,) = worker.reports_of("trained")
    manifest = json.loads(house.store.read(MODELS, f"adapters/{trained['digest']}/manifest.json"))
    return weights(house.store, manifest)


def chosen(accumulation: int = 1) -> Recipe:
    return recipe(
        adapter={"dropout": 0.0},
        batch={"tokens": 128, "max_length": 128, "accumulation": accumulation},
        limit={"max_steps": 12, "epochs": 20, "max_tokens": 0},
        precision="f32",
        checkpoint_every_steps=3,
    )


@pytest.fixture(scope="module")
def whole(built: House, tmp_path_factory: pytest.TempPathFactory) -> tuple[Started, bytes]:
    """An uninterrupted run in two processes, and its adapter."""
    folder = tmp_path_factory.mktemp("whole")
    own = replace(built, store=FileStore(shutil.copytree(built.store.root, folder / "store")))
    worker = Started(own, job(own, chosen()), folder / "run", 2)
    assert worker.end() == 0
    return worker, adapter(own, worker)


def test_two_processes_learn_the_same_as_one(house: House, whole: tuple[Started, bytes], tmp_path: Path) -> None:
    single = Started(house, job(house, chosen(accumulation=2)), tmp_path / "one", 1, RELOAD_HERE)
    assert single.end() == 0
    # A step of two processes has at least two bins, even if the recipe says one.
    double, _ = whole
    assert list(double.losses()) == list(range(1, 13))
    assert double.losses() == pytest.approx(single.losses(), abs=1e-5)
    assert double.reports_of("trained")[0]["tokens"] == single.reports_of("trained")[0]["tokens"]


@pytest.mark.release
def test_dead_process_ends_the_other_and_the_run_resumes(
    house: House, whole: tuple[Started, bytes], tmp_path: Path
) -> None:
    killed = Started(house, job(house, chosen()), tmp_path / "killed", 2)
    killed.wait_for_step(4)
    ranks = killed.ranks()
    os.kill(ranks[1], signal.SIGKILL)
    assert killed.end() == 128 + signal.SIGKILL
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks)
    newest = max(key.rpartition("/")[0] for key in house.store.list_keys(MODELS, "runs/run_1/1/"))
    files = {key.rpartition("/")[2] for key in house.store.list_keys(MODELS, newest)}
    assert {"adapter_model.safetensors", "optimizer.pt", "rng_state_0.pth", "rng_state_1.pth"} <= files

    interrupted = Started(house, job(house, chosen(), epoch=2), tmp_path / "told", 2)
    interrupted.wait_for_step(4)
    interrupted.process.send_signal(signal.SIGTERM)
    assert interrupted.end() == RETRIABLE_EXIT
    last = Started(house, job(house, chosen(), epoch=3), tmp_path / "last", 2, RELOAD_HERE)
    assert last.end() == 0
    assert min(last.losses()) == max(interrupted.losses()) + 1
    assert adapter(house, last) == whole[1]
