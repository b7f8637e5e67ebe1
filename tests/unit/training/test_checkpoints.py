"""Checkpoints."""

import hashlib
import json
from pathlib import Path

import pytest

from services.training.worker.checkpoints import Checkpoints, ResumePoint
from tailor.storage.buckets import MODELS
from tailor.storage.memory import MemoryStore
from tailor.storage.ref import Ref
from tests.unit.training.stores import make_signer


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def save_folder(folder: Path, step: int) -> Path:
    made = folder / f"saved-{step}"
    made.mkdir()
    (made / "adapter_model.safetensors").write_bytes(f"weights {step}".encode())
    (made / "optimizer.pt").write_bytes(b"moments")
    (made / "trainer_state.json").write_text("{}")
    (made / "training_args.bin").write_bytes(b"a pickle")
    return made


class KilledError(Exception):
    """The worker's process ends here."""


class DyingStore(MemoryStore):
    """A store whose worker is killed after `changes` writes or deletions."""

    def __init__(self, objects: dict[tuple[str, str], bytes], changes: int) -> None:
        super().__init__()
        self.objects, self._left = objects, changes

    def put(self, bucket: str, key: str, data: bytes, content_type: str = "application/octet-stream") -> Ref:
        self._count()
        return super().put(bucket, key, data, content_type)

    def delete(self, bucket: str, key: str) -> None:
        self._count()
        super().delete(bucket, key)

    def _count(self) -> None:
        if self._left == 0:
            raise KilledError
        self._left -= 1


def load_step(store: MemoryStore, folder: Path) -> int:
    folder.mkdir(exist_ok=True)
    return checkpoints(store, 9).load_newest(folder).step


def checkpoints(store: MemoryStore, epoch: int = 1, stage: int = 0) -> Checkpoints:
    return Checkpoints(store, make_signer(), "run_1", epoch, stage)


def test_newest_checkpoint_of_any_epoch_is_loaded_without_pickles(store: MemoryStore, tmp_path: Path) -> None:
    checkpoints(store).save(2, save_folder(tmp_path, 2), 200)
    checkpoints(store, 2).save(4, save_folder(tmp_path, 4), 400)
    assert load_step(store, tmp_path / "new") == 4
    names = {path.name for path in (tmp_path / "new" / "checkpoint-4").iterdir()}
    assert names == {"adapter_model.safetensors", "optimizer.pt", "trainer_state.json"}


def test_worker_of_an_old_epoch_deletes_no_checkpoint_of_its_successor(store: MemoryStore, tmp_path: Path) -> None:
    for step in (2, 4):
        checkpoints(store, 2).save(step, save_folder(tmp_path, step), 100 * step)
    for step in (5, 6, 7):
        checkpoints(store, 1).save(step, save_folder(tmp_path, step), 100 * step)
    assert sum(key.endswith("manifest.json") for key in store.list_keys(MODELS, "runs/run_1/2/")) == 2
    assert sum(key.endswith("manifest.json") for key in store.list_keys(MODELS, "runs/run_1/1/")) == 2


def test_incomplete_checkpoint_is_skipped(store: MemoryStore, tmp_path: Path) -> None:
    checkpoints(store).save(2, save_folder(tmp_path, 2), 200)
    checkpoints(store).save(4, save_folder(tmp_path, 4), 400)
    store.delete(MODELS, "runs/run_1/1/stage-0-step-4/manifest.json")
    assert load_step(store, tmp_path / "new") == 2


# Three files and the manifest are written, then the manifest and three files of the oldest checkpoint are deleted.
@pytest.mark.parametrize("changes", range(8))
def test_newest_complete_checkpoint_is_loaded_after_a_kill_at_any_object(
    store: MemoryStore, tmp_path: Path, changes: int
) -> None:
    for step in (2, 4):
        checkpoints(store).save(step, save_folder(tmp_path, step), step * 100)
    with pytest.raises(KilledError):
        checkpoints(DyingStore(store.objects, changes)).save(6, save_folder(tmp_path, 6), 600)
    whole = 6 if changes >= 4 else 4
    assert checkpoints(store, 2).load_newest(tmp_path / "new") == ResumePoint(whole, whole * 100)
    weights = tmp_path / "new" / f"checkpoint-{whole}" / "adapter_model.safetensors"
    assert weights.read_bytes() == f"weights {whole}".encode()
    checkpoints(store, 2).save(8, save_folder(tmp_path, 8), 800)
    assert load_step(store, tmp_path / "again") == 8
    checkpoints(store, 2).delete_all()
    assert not store.list_keys(MODELS, "runs/")


@pytest.mark.parametrize("change", [b"tampered", b"", None])
def test_tampered_file_is_never_loaded(store: MemoryStore, tmp_path: Path, change: bytes | None) -> None:
    checkpoints(store).save(2, save_folder(tmp_path, 2), 200)
    checkpoints(store).save(4, save_folder(tmp_path, 4), 400)
    key = (MODELS, "runs/run_1/1/stage-0-step-4/optimizer.pt")
    if change is None:
        del store.objects[key]
    else:
        store.objects[key] = change
    assert load_step(store, tmp_path / "new") == 2
    assert not (tmp_path / "new" / "checkpoint-4").exists()


@pytest.mark.parametrize(
    "manifest",
    [
        b"{",
        b"null",
        b"[" * 100_000,
        b'{"signature": "00", "files": null}',
        b'{"run_id": "run_1", "step": 4, "files": [{"path": "../../x"}]}',
    ],
)
def test_malformed_manifest_is_skipped(store: MemoryStore, tmp_path: Path, manifest: bytes) -> None:
    checkpoints(store).save(4, save_folder(tmp_path, 4), 400)
    store.objects[MODELS, "runs/run_1/1/stage-0-step-4/manifest.json"] = manifest
    assert load_step(store, tmp_path / "new") == 0


def test_checkpoint_of_another_run_is_skipped(store: MemoryStore, tmp_path: Path) -> None:
    checkpoints(store).save(4, save_folder(tmp_path, 4), 400)
    for (bucket, key), content in list(store.objects.items()):
        store.objects[bucket, key.replace("run_1", "run_2")] = content
    replayed = Checkpoints(store, make_signer(), "run_2", 2, 0)
    assert replayed.load_newest(tmp_path / "new").step == 0
    assert load_step(store, tmp_path / "own") == 4


def test_two_checkpoints_are_kept_and_all_are_deleted_with_the_run(store: MemoryStore, tmp_path: Path) -> None:
    for step in (2, 4, 6):
        checkpoints(store).save(step, save_folder(tmp_path, step), step * 100)
    assert not store.list_keys(MODELS, "runs/run_1/1/stage-0-step-2/")
    assert store.list_keys(MODELS, "runs/run_1/1/stage-0-step-4/")
    checkpoints(store).delete_all()
    assert not store.list_keys(MODELS, "runs/")


def test_manifest_signed_with_another_key_is_skipped(store: MemoryStore, tmp_path: Path) -> None:
    Checkpoints(store, make_signer(b"a stranger's"), "run_1", 1, 0).save(4, save_folder(tmp_path, 4), 400)
    assert load_step(store, tmp_path / "new") == 0


def test_weights_and_manifest_altered_together_are_skipped(store: MemoryStore, tmp_path: Path) -> None:
    checkpoints(store).save(4, save_folder(tmp_path, 4), 400)
    place = "runs/run_1/1/stage-0-step-4"
    store.objects[MODELS, f"{place}/optimizer.pt"] = b"poison"
    manifest = json.loads(store.objects[MODELS, f"{place}/manifest.json"])
    entry = next(file for file in manifest["files"] if file["path"] == "optimizer.pt")
    entry.update(sha256=hashlib.sha256(b"poison").hexdigest(), size_bytes=6)
    store.objects[MODELS, f"{place}/manifest.json"] = json.dumps(manifest).encode()
    assert load_step(store, tmp_path / "new") == 0


def test_checkpoint_moved_to_another_step_is_skipped(store: MemoryStore, tmp_path: Path) -> None:
    checkpoints(store).save(4, save_folder(tmp_path, 4), 400)
    for bucket, key in list(store.objects):
        store.objects[bucket, key.replace("step-4", "step-9")] = store.objects.pop((bucket, key))
    assert load_step(store, tmp_path / "new") == 0


def test_each_stage_has_its_own_checkpoints(store: MemoryStore, tmp_path: Path) -> None:
    checkpoints(store, 1, stage=0).save(4, save_folder(tmp_path, 4), 400)
    checkpoints(store, 2, stage=1).save(2, save_folder(tmp_path, 2), 200)
    assert checkpoints(store, 3, stage=1).load_newest(tmp_path / "new") == ResumePoint(2, 200)
    checkpoints(store, stage=0).delete_all()
    assert checkpoints(store, stage=1).load_newest(tmp_path / "again").step == 2
