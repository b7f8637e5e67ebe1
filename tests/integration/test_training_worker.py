"""A real worker on a tiny model: completed, killed, interrupted and cancelled, with every kind of recipe.

Where the process itself is not what matters, the worker runs in the tests' process, which has loaded the model libraries.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from services.inference.adapters.verify import check_adapter_manifest
from services.training.bases.store import StoredBases, fetch_here
from services.training.domain import RETRIABLE_EXIT, Base, Job, Run, RunKey, RunState, Stage
from services.training.recipe import Recipe
from services.training.spec import from_json, to_json
from services.training.worker.reload_check import Reload, compute_figures, reload_in_fresh_process
from tailor.api.events.v1 import models_pb2
from tailor.api.training.v1 import training_pb2 as pb
from tailor.compute_lock import ComputeLock
from tailor.errors import FailedPrecondition, InvalidArgument
from tailor.storage.buckets import MODELS
from tailor.storage.ref import Ref
from tests.integration.training_house import WORDS, pairs, recipe, rows, store_dataset
from tests.integration.training_worker import LOCK, RELOAD_HERE
from tests.models import WITHOUT_AVX512, make_tiny_base
from tests.training import Service, adapter, run_worker
from tests.unit.training.fakes import START
from tests.unit.training.stores import FileStore
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class House:
    """A store with a dataset and a tiny base."""

    store: FileStore
    dataset: Ref
    base: Base


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [message["content"] for row in rows() for message in row["messages"]]
    return make_tiny_base(tmp_path_factory.mktemp("tiny"), texts, vocabulary=400)


@pytest.fixture(scope="module")
def built(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> House:
    """The house that each test gets a copy of."""
    folder = tmp_path_factory.mktemp("house")
    store = FileStore(folder / "store")
    *_, base = StoredBases(store, folder / "scratch", fetch=fetch_here).add("tiny", f"path:{tiny}")
    assert isinstance(base, Base)
    return House(store, store_dataset(store, train=rows(), held_out=rows(30)[24:]), base)


@pytest.fixture
def house(built: House, tmp_path: Path) -> House:
    return replace(built, store=FileStore(shutil.copytree(built.store.root, tmp_path / "store")))


def job(house: House, chosen: Recipe, epoch: int = 1, parent: Ref | None = None) -> Job:
    key = RunKey("reports", house.dataset.sha256, "tiny", chosen.digest)
    stage = Stage("tiny", chosen.method, chosen.to_json(), "sft", house.dataset, parent=parent)
    run = Run("run_1", key, "tiny", (stage,), RunState.RUNNING, START, epoch=epoch)
    return Job(replace(run, start_time=START), house.base.digest)


def run_here(
    house: House, work: Job, folder: Path, reload: Reload = compute_figures, service: Service | None = None
) -> Service:
    """Run a worker in this process, which must end as one that has reported its end. By default it also reloads its weights here."""
    service = service or Service(lambda _: None)
    spec = from_json(to_json(work))
    folder.mkdir(exist_ok=True)
    chosen = Recipe.model_validate_json(spec.recipe_json)
    assert run_worker(spec, chosen, house.store, service, folder, reload=reload) == 0
    return service


def manifest_of(store: FileStore, service: Service) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(store.get(adapter(service)))
    return manifest


class Started:
    """A worker process and its reports."""

    def __init__(
        self,
        house: House,
        work: Job,
        folder: Path,
        *options: str,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.reports_file = folder, folder / f"reports-{work.name}"
        spec = folder / f"{work.name}.json"
        spec.write_text(to_json(work))
        script = ROOT / "tests" / "integration" / "training_worker.py"
        arguments = [
            str(spec),
            str(house.store.root),
            str(self.reports_file),
            str(folder / f"work-{work.name}"),
            *options,
        ]
        self.process = subprocess.Popen(
            [sys.executable, str(script), *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment},
            stdout=subprocess.DEVNULL,
        )

    def reports(self) -> list[dict[str, Any]]:
        if not self.reports_file.exists():
            return []
        return [json.loads(line) for line in self.reports_file.read_text().splitlines() if line.endswith("}")]

    def steps(self) -> list[int]:
        reports = [report["progress"] for report in self.reports() if "progress" in report]
        return [report["step"] for report in reports if report["phase"] == "training"]

    def log(self) -> list[str]:
        reports = [report["log"]["lines"] for report in self.reports() if "log" in report]
        return [line["message"] for lines in reports for line in lines]

    def wait_for_step(self, step: int) -> None:
        def has_done_it() -> bool:
            done = any(number >= step for number in self.steps())
            assert done or self.process.poll() is None, "the worker ended early"
            return done

        wait_until(has_done_it, 240, f"step {step}")

    def end(self) -> int:
        return self.process.wait(1200)

    def loaded(self) -> set[str]:
        """The packages that it loaded. It must have ended."""
        return set(Path(f"{self.reports_file}.loaded").read_text().split())

    def adapter(self, store: FileStore) -> dict[str, Any]:
        digest = self.reports()[-1]["trained"]["digest"]
        manifest: dict[str, Any] = json.loads(store.read(MODELS, f"adapters/{digest}/manifest.json"))
        return manifest


def weights(store: FileStore, manifest: dict[str, Any]) -> bytes:
    (file,) = [file for file in manifest["files"] if file["path"].endswith(".safetensors")]
    return store.get(Ref(f"s3://{MODELS}/{file['key']}", file["sha256"], file["size_bytes"]))


# Long enough to be stopped and killed on the way.
LONG = recipe(limit={"max_steps": 40, "epochs": 20}, checkpoint_every_steps=3)


@pytest.fixture(scope="module")
def whole(built: House, tmp_path_factory: pytest.TempPathFactory) -> tuple[House, Started]:
    """A house with a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    house = replace(built, store=FileStore(shutil.copytree(built.store.root, folder / "store")))
    worker = Started(house, job(house, LONG), folder / "a")
    assert worker.end() == 0
    return house, worker


def test_run_completes_with_a_verified_adapter(whole: tuple[House, Started]) -> None:
    house, worker = whole
    assert worker.steps() == list(range(1, 41))
    phases = [report["progress"]["phase"] for report in worker.reports() if "progress" in report]
    assert (phases[0], phases[-2:]) == ("loading", ["saving", "verifying"])
    trained = worker.reports()[-1]["trained"]
    assert trained["last_loss"] < trained["first_loss"]
    manifest = worker.adapter(house.store)
    assert [file["path"] for file in manifest["files"]] == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert (manifest["base_digest"], manifest["kind"], manifest["not_served_because"]) == (
        house.base.digest,
        "policy",
        "",
    )
    assert manifest["metrics"] == trained["metrics"]
    assert manifest["metrics"]["held_out_loss"] > 0
    *measured, best = held_out_losses(worker)
    assert best == pytest.approx(manifest["metrics"]["held_out_loss"]) == pytest.approx(min(measured), abs=1e-4)
    assert trained["tokens"] and trained["rows"] == 24 and int(trained["memory_bytes"]) > 2**20
    assert len(manifest["probes"]) == 2
    assert {"row_id", "tokens", "prompt_length", "log_probability", "precision"} == set(manifest["probes"][0])
    assert any(line.startswith("training rows=24 rows_skipped=0 steps=40") for line in worker.log())
    assert not [line for line in worker.log() if any(word in line for word in WORDS)]
    config = next(file for file in manifest["files"] if file["path"] == "adapter_config.json")
    assert json.loads(house.store.read(MODELS, config["key"]))["base_model_name_or_path"] == "tiny"
    assert house.store.list_keys(MODELS, "runs/") == []
    # Loading these takes two seconds, and no recipe without NF4 uses them.
    assert "transformers" in worker.loaded() and not {"sklearn", "scipy", "bitsandbytes"} & worker.loaded()


def held_out_losses(worker: Started) -> list[float]:
    reports = [report["progress"] for report in worker.reports() if "progress" in report]
    return [progress["held_out_loss"] for progress in reports if "held_out_loss" in progress]


def test_a_processor_that_would_emulate_bf16_trains_in_f32_and_the_result_says_so(house: House, tmp_path: Path) -> None:
    assert recipe().precision == "bf16"
    worker = Started(house, job(house, recipe()), tmp_path / "a", RELOAD_HERE, environment=WITHOUT_AVX512)
    assert worker.end() == 0
    assert worker.adapter(house.store)["recipe"]["precision"] == "f32"
    assert "bf16 is emulated here, computing in f32 instead precision=bf16" in worker.log()


def test_run_that_is_stopped_and_then_killed_loses_no_step_and_ends_with_the_same_weights(
    whole: tuple[House, Started], house: House, tmp_path: Path
) -> None:
    undisturbed, worker = whole
    expected = weights(undisturbed.store, worker.adapter(undisturbed.store))

    # A caller waits all the time, so that it pauses within its steps.
    with ComputeLock(tmp_path / "a" / LOCK).hold():
        first = Started(house, job(house, LONG), tmp_path / "a")
        first.wait_for_step(3)
        first.process.send_signal(signal.SIGTERM)
        assert first.end() == RETRIABLE_EXIT

    second = Started(house, job(house, LONG, epoch=2), tmp_path / "a")
    second.wait_for_step(first.steps()[-1] + 5)
    os.kill(second.process.pid, signal.SIGKILL)
    second.end()
    assert second.steps()[0] == first.steps()[-1] + 1
    keys = house.store.list_keys(MODELS, "runs/run_1/2/")
    assert any(key.endswith("manifest.json") for key in keys)
    # A checkpoint whose upload was killed: files, but no manifest.
    house.store.put(MODELS, "runs/run_1/2/stage-0-step-39/adapter_model.safetensors", b"half of it")

    third = Started(house, job(house, LONG, epoch=3), tmp_path / "a", RELOAD_HERE)
    assert third.end() == 0
    assert first.steps()[-1] < third.steps()[0] <= 39
    assert third.steps()[-1] == worker.steps()[-1]
    assert weights(house.store, third.adapter(house.store)) == expected


def test_cancelled_worker_ends_without_an_adapter(house: House, tmp_path: Path) -> None:
    class Cancelling(Service):
        """Asks the worker to stop at its first step."""

        def report(self, request: pb.ReportProgressRequest) -> bool:
            super().report(request)
            return any(report.step for report in self.progress)

    work = job(house, recipe(limit={"max_steps": 5000, "epochs": 100, "max_tokens": 0}))
    service = run_here(house, work, tmp_path / "a", service=Cancelling(lambda _: None))
    assert max(report.step for report in service.progress) < 5000
    assert (service.trained, service.failed) == (None, None)
    assert house.store.list_keys(MODELS, "adapters/") == []


def test_run_that_cannot_succeed_ends_with_the_reason(house: House, tmp_path: Path) -> None:
    poor = replace(
        house,
        dataset=store_dataset(house.store, train=[{**rows()[0], "messages": [{"role": "user", "content": "a"}]}]),
    )
    failed = run_here(poor, job(poor, recipe()), tmp_path / "a").failed
    assert failed is not None and failed.reason == "INVALID_ROW"


def test_tampered_base_is_not_trained_on(house: House, tmp_path: Path) -> None:
    key = next(key for key in house.store.list_keys(MODELS, "bases/files/"))
    house.store.put(MODELS, key, b"something else")
    failed = run_here(house, job(house, recipe()), tmp_path / "a").failed
    assert failed is not None and failed.reason == "CORRUPT_OBJECT"


@pytest.mark.parametrize(
    ("chosen", "form", "file"),
    [
        (recipe(adapter={"kind": "qlora"}), "adapter", "adapter_model.safetensors"),
        (recipe(adapter={"kind": "none"}, precision="mixed"), "full", "model.safetensors"),
        (
            recipe(adapter={"use_rslora": True, "use_dora": True}, precision="f32"),
            "adapter",
            "adapter_model.safetensors",
        ),
    ],
    ids=["qlora", "full", "rslora-dora-f32"],
)
def test_every_kind_of_recipe_trains(house: House, tmp_path: Path, chosen: Recipe, form: str, file: str) -> None:
    # NF4 is the kind whose figures could differ between processes.
    reload = reload_in_fresh_process if chosen.adapter.kind == "qlora" else compute_figures
    worker = run_here(house, job(house, chosen), tmp_path / "a", reload)
    manifest = manifest_of(house.store, worker)
    assert manifest["weights"] == form
    assert file in [entry["path"] for entry in manifest["files"]]
    assert worker.trained is not None
    assert worker.trained.last_loss < worker.trained.first_loss


def test_reward_stage_continues_its_policy_and_is_never_served(house: House, tmp_path: Path) -> None:
    parent = adapter(run_here(house, job(house, recipe()), tmp_path / "sft"))
    ranked = replace(house, dataset=store_dataset(house.store, train=pairs(), held_out=pairs(6, 24)))
    chosen = recipe(method="reward", adapter={"dropout": 0.0})
    worker = run_here(ranked, job(ranked, chosen, epoch=2, parent=parent), tmp_path / "reward", reload_in_fresh_process)
    trained = worker.trained
    assert trained is not None
    assert (trained.kind, trained.parent_digest) == (models_pb2.ADAPTER_KIND_REWARD, parent.sha256)
    assert dict(trained.metrics) == {"reward_accuracy": 1.0}
    manifest = manifest_of(house.store, worker)
    assert (manifest["kind"], manifest["parent_digest"]) == ("reward", parent.sha256)
    assert "reward" in manifest["probes"][0]
    with pytest.raises(FailedPrecondition) as refused:
        check_adapter_manifest(manifest, house.base.digest)
    assert refused.value.reason == "WRONG_KIND"
    assert worker.progress[-3].accuracy == 1.0


def test_spec_round_trips_to_the_worker(house: House) -> None:
    work = job(house, recipe())
    spec = from_json(to_json(work))
    assert (spec.run_id, spec.dataset_manifest, spec.base_digest) == ("run_1", house.dataset, house.base.digest)


def test_adding_a_base_again_stores_no_new_object(house: House, tiny: Path, tmp_path: Path) -> None:
    before = house.store.list_keys(MODELS, "")
    *_, again = StoredBases(house.store, tmp_path / "scratch").add("tiny", f"path:{tiny}")
    assert again == house.base
    assert house.store.list_keys(MODELS, "") == before


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl"])
def test_base_with_a_pickle_is_rejected(house: House, tiny: Path, tmp_path: Path, name: str) -> None:
    directory = tmp_path / "pickled"
    directory.mkdir()
    for file in tiny.iterdir():
        (directory / file.name).write_bytes(file.read_bytes())
    (directory / name).write_bytes(b"\x80\x04")
    with pytest.raises(InvalidArgument) as refused:
        list(StoredBases(house.store, tmp_path / "scratch").add("pickled", f"path:{directory}"))
    assert refused.value.reason == "PICKLE_REFUSED"


@pytest.mark.parametrize("source", ["wheel:requests", "ftp://x", "path:relative", "hub:../../etc", "path:/proc"])
def test_unknown_sources_are_rejected(house: House, tmp_path: Path, source: str) -> None:
    with pytest.raises(InvalidArgument):
        list(StoredBases(house.store, tmp_path / "scratch").add("odd", source))
