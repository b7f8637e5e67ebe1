"""Runs, checkpoints and adapters of erased documents."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from services.training.consumers import Consumers
from services.training.domain import DATASET_ERASED, RunState
from services.training.erasures import Eraser
from services.training.handlers import create_run
from services.training.pipeline import queue_run_for_dataset
from services.training.recipe import load_recipe
from services.training.reporting import report_trained
from tailor.api.events.v1 import models_pb2
from tailor.errors import Unavailable
from tailor.events.envelope import Event
from tailor.events.erased import Erased
from tailor.storage.memory import MemoryStore
from tailor.wire import from_ref
from tests.unit.training.chains import write_recipes
from tests.unit.training.fakes import BASE, MANIFEST, RATES, House, adapter, built_as, trained, wanted

ERASED = Erased("doc_1", "ers_1", ("d1",), ("a1",), ("a1",))


def eraser(house: House, store: MemoryStore, work: Path) -> Eraser:
    return Eraser(house.runs, house.launcher, store, work, house.now)


def test_running_run_ends_and_loses_its_checkpoints_once_its_worker_has_ended(tmp_path: Path) -> None:
    house, store = House(), MemoryStore()
    create_run(house.ports, wanted())
    house.supervisor.tick()
    run = house.only_run()
    for name in ("manifest.json", "optimizer.pt"):
        store.put("models", f"runs/{run.run_id}/1/step-2/{name}", b"x")
    (tmp_path / f"{run.run_id}-1-x").mkdir()
    with pytest.raises(Unavailable):
        eraser(house, store, tmp_path).forget(ERASED)
    assert (house.only_run().state, house.only_run().reason) == (RunState.CANCELLED, DATASET_ERASED)
    assert house.launcher.stopped == [(run.run_id, 1)]
    house.launcher.exits[run.run_id, 1] = 75
    counts = eraser(house, store, tmp_path).forget(ERASED).counts
    assert (counts["runs_cancelled"], counts["checkpoint_objects"]) == (1, 2)
    assert not store.objects and not list(tmp_path.iterdir())


def test_silent_worker_is_waited_for_only_as_long_as_it_may_live(tmp_path: Path) -> None:
    house = House()
    create_run(house.ports, wanted())
    house.supervisor.tick()
    with pytest.raises(Unavailable):
        eraser(house, MemoryStore(), tmp_path).forget(ERASED)
    house.now.forward(60)
    eraser(house, MemoryStore(), tmp_path).forget(ERASED)


def test_retired_adapter_loses_its_files_except_shared_ones(tmp_path: Path) -> None:
    house, store = House(), MemoryStore()
    for digest, files in (("a1", ("shared", "own")), ("a2", ("shared",))):
        entries = [{"path": name, "key": f"adapters/files/{name}"} for name in files]
        store.put("models", f"adapters/{digest}/manifest.json", json.dumps({"files": entries}).encode())
        for name in files:
            store.put("models", f"adapters/files/{name}", b"x")
    assert eraser(house, store, tmp_path).forget(ERASED).counts["adapter_objects"] == 2
    assert sorted(key for _, key in store.objects) == ["adapters/a2/manifest.json", "adapters/files/shared"]
    assert eraser(house, store, tmp_path).forget(replace(ERASED)).counts["adapter_objects"] == 0


def test_dataset_with_an_erased_document_is_not_trained_on() -> None:
    house = House()
    built = models_pb2.DatasetBuilt(
        digest="d1",
        specialist="reports",
        kind=models_pb2.DATASET_KIND_SFT,
        base="tiny",
        pipeline=[models_pb2.PipelineStage(stage="sft", recipe="tiny")],
    )
    built.manifest.CopyFrom(from_ref(MANIFEST))
    event = Event("dataset.built.v1", "reports", built.SerializeToString())
    Consumers(house.ports, {"doc_1"}).on_dataset_built(event)
    assert not house.runs.runs
    Consumers(house.ports, {"doc_2"}).on_dataset_built(event)
    assert len(house.runs.runs) == 1


def test_dataset_that_was_deleted_is_not_trained_on() -> None:
    house = House()
    house.datasets.deleted.add(MANIFEST)
    message = models_pb2.DatasetBuilt(digest="d1", specialist="reports", kind=models_pb2.DATASET_KIND_SFT, base="tiny")
    message.manifest.CopyFrom(from_ref(MANIFEST))
    Consumers(house.ports).on_dataset_built(Event("dataset.built.v1", "reports", message.SerializeToString()))
    assert not house.runs.runs


def finished_chain(house: House) -> None:
    asked = wanted(recipe="chain", preference_dataset_digest="p1")
    run_id = create_run(house.ports, asked).run_id
    for epoch, digest in enumerate(("a1", "r1", "a2"), start=1):
        house.supervisor.tick()
        report_trained(house.runs, run_id, epoch, trained(digest), rates=RATES, now=house.now())
        house.launcher.exits[run_id, epoch] = 0


@pytest.mark.parametrize(("dataset", "left"), [("d1", []), ("p1", ["a1"])])
def test_adapters_from_an_erased_dataset_are_no_longer_built_on(tmp_path: Path, dataset: str, left: list[str]) -> None:
    house = House(write_recipes(tmp_path))
    finished_chain(house)
    eraser(house, MemoryStore(), tmp_path).forget(Erased("doc_1", "ers_1", (dataset,)))
    assert list(house.runs.adapters) == left


def test_run_with_an_erased_preference_dataset_ends(tmp_path: Path) -> None:
    house = House(write_recipes(tmp_path))
    create_run(house.ports, wanted(recipe="polish"))
    queue_run_for_dataset(house.ports, built_as("p1", "sft"))
    eraser(house, MemoryStore(), tmp_path).forget(Erased("doc_1", "ers_1", ("p1",)))
    assert (house.only_run().state, house.only_run().reason) == (RunState.CANCELLED, DATASET_ERASED)


def test_adapters_on_a_base_with_a_merged_tainted_adapter_are_no_longer_built_on(tmp_path: Path) -> None:
    house = House()
    house.bases.bases["tiny"] = replace(BASE, adapter_digest="a0")
    run_id = create_run(house.ports, wanted()).run_id
    house.supervisor.tick()
    report_trained(house.runs, run_id, 1, trained("a1"), rates=RATES, now=house.now())
    create_run(house.ports, wanted(dataset_digest="d2"))
    eraser(house, MemoryStore(), tmp_path).forget(Erased("doc_1", "ers_1", (), ("a0",)))
    assert not house.runs.adapters
    assert [run.state for run in house.runs.runs.values()] == [RunState.SUCCEEDED, RunState.CANCELLED]


def test_only_runs_whose_parent_learned_from_an_erased_document_end(tmp_path: Path) -> None:
    house = House()
    house.adapters.adapters["a1"] = adapter("a1", shape=load_recipe("tiny").adapter.model_dump(mode="json"))
    for digest, parent in (("d1", ""), ("d2", "a1"), ("d2", "")):
        house.now.forward(1)
        create_run(house.ports, wanted(dataset_digest=digest, parent_digest=parent))
    eraser(house, MemoryStore(), tmp_path).forget(Erased("doc_1", "ers_1", (), ("a1",)))
    assert [run.state for run in house.runs.runs.values()] == [RunState.QUEUED, RunState.CANCELLED, RunState.QUEUED]
