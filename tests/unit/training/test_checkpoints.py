"""Checkpoints."""

from pathlib import Path

import pytest

from services.training.adapters.checkpoints import Checkpoints
from tailor.storage.buckets import MODELS
from tailor.storage.memory import MemoryStore


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def saved(folder: Path, step: int) -> Path:
    made = folder / f"saved-{step}"
    made.mkdir()
    (made / "adapter_model.safetensors").write_bytes(f"weights {step}".encode())
    (made / "optimizer.pt").write_bytes(b"moments")
    (made / "trainer_state.json").write_text("{}")
    (made / "training_args.bin").write_bytes(b"a pickle")
    return made


def restored(store: MemoryStore, folder: Path) -> int:
    folder.mkdir(exist_ok=True)
    return Checkpoints(store, "run_1", 9).newest(folder)


def test_newest_of_any_epoch_is_taken_without_pickles(store: MemoryStore, tmp_path: Path) -> None:
    Checkpoints(store, "run_1", 1).save(2, saved(tmp_path, 2))
    Checkpoints(store, "run_1", 2).save(4, saved(tmp_path, 4))
    assert restored(store, tmp_path / "new") == 4
    names = {path.name for path in (tmp_path / "new" / "checkpoint-4").iterdir()}
    assert names == {"adapter_model.safetensors", "optimizer.pt", "trainer_state.json"}


def test_torn_checkpoint_is_passed_over(store: MemoryStore, tmp_path: Path) -> None:
    Checkpoints(store, "run_1", 1).save(2, saved(tmp_path, 2))
    Checkpoints(store, "run_1", 1).save(4, saved(tmp_path, 4))
    store.delete(MODELS, "runs/run_1/1/step-4/manifest.json")
    assert restored(store, tmp_path / "new") == 2


@pytest.mark.parametrize("change", [b"tampered", b"", None])
def test_tampered_file_is_never_loaded(store: MemoryStore, tmp_path: Path, change: bytes | None) -> None:
    Checkpoints(store, "run_1", 1).save(2, saved(tmp_path, 2))
    Checkpoints(store, "run_1", 1).save(4, saved(tmp_path, 4))
    key = (MODELS, "runs/run_1/1/step-4/optimizer.pt")
    if change is None:
        del store.objects[key]
    else:
        store.objects[key] = change
    assert restored(store, tmp_path / "new") == 2
    assert not (tmp_path / "new" / "checkpoint-4").exists()


@pytest.mark.parametrize("manifest", [b"{", b'{"run_id": "run_1", "step": 4, "files": [{"path": "../../x"}]}'])
def test_manifest_that_makes_no_sense_is_passed_over(store: MemoryStore, tmp_path: Path, manifest: bytes) -> None:
    Checkpoints(store, "run_1", 1).save(4, saved(tmp_path, 4))
    store.objects[MODELS, "runs/run_1/1/step-4/manifest.json"] = manifest
    assert restored(store, tmp_path / "new") == 0


def test_two_are_kept_and_all_go_with_the_run(store: MemoryStore, tmp_path: Path) -> None:
    checkpoints = Checkpoints(store, "run_1", 1)
    for step in (2, 4, 6):
        checkpoints.save(step, saved(tmp_path, step))
    assert not store.list_keys(MODELS, "runs/run_1/1/step-2/")
    assert store.list_keys(MODELS, "runs/run_1/1/step-4/")
    checkpoints.drop_all()
    assert not store.list_keys(MODELS, "runs/")
