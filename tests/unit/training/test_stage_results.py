"""Notes of a stage: later workers read them, but only with a valid signature of the workers' key."""

import json
from pathlib import Path

import pytest

from services.training.methods.stage_results import StageNotes
from services.training.worker.checkpoints import Checkpoints
from tailor.storage.buckets import MODELS
from tests.unit.training.stores import FileStore, make_signer


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path)


def notes(
    store: FileStore, *, run_id: str = "run_1", epoch: int = 1, stage: int = 0, key: bytes = b"ours"
) -> StageNotes:
    return StageNotes(store, make_signer(key), run_id, epoch, stage)


def test_later_worker_reads_an_earlier_workers_note(store: FileStore) -> None:
    notes(store).write("sweep-0.001", 1.25)
    assert notes(store, epoch=2).read("sweep-0.001") == 1.25


def test_other_name_stage_and_run_have_no_such_note(store: FileStore) -> None:
    notes(store).write("sweep-0.001", 1.25)
    assert notes(store).read("sweep-0.01") is None
    assert notes(store, stage=1).read("sweep-0.001") is None
    assert notes(store, run_id="run_2").read("sweep-0.001") is None


@pytest.mark.parametrize("content", [b"null", b"[" * 100_000, b""])
def test_malformed_note_is_skipped(store: FileStore, content: bytes) -> None:
    notes(store).write("sweep-0.001", 1.25)
    (key,) = store.list_keys(MODELS, "runs/run_1/")
    store.put(MODELS, key, content)
    assert notes(store, epoch=2).read("sweep-0.001") is None


@pytest.mark.parametrize("change", [{"value": 0.0}, {"signature": "00"}, {"run_id": "run_2"}])
def test_altered_note_is_skipped(store: FileStore, change: dict[str, object]) -> None:
    notes(store).write("sweep-0.001", 1.25)
    (key,) = store.list_keys(MODELS, "runs/run_1/")
    store.put(MODELS, key, json.dumps({**json.loads(store.read(MODELS, key)), **change}).encode())
    assert notes(store, epoch=2).read("sweep-0.001") is None


def test_note_copied_from_another_run_is_skipped(store: FileStore) -> None:
    notes(store, run_id="run_2").write("sweep-0.001", 1.25)
    (key,) = store.list_keys(MODELS, "runs/run_2/")
    store.put(MODELS, key.replace("run_2", "run_1"), store.read(MODELS, key))
    assert notes(store).read("sweep-0.001") is None


def test_incomplete_and_wrongly_signed_notes_are_skipped_for_a_valid_one(store: FileStore) -> None:
    store.put(MODELS, "runs/run_1/0/stage-0-note-sweep-0.001.json", b'{"value": 0.')
    notes(store, key=b"theirs").write("sweep-0.001", 0.5)
    notes(store, epoch=2).write("sweep-0.001", 1.25)
    assert notes(store, epoch=3).read("sweep-0.001") == 1.25


def test_notes_are_deleted_with_the_stages_checkpoints(store: FileStore) -> None:
    notes(store).write("sweep-0.001", 1.25)
    notes(store, stage=1).write("sweep-0.001", 1.5)
    Checkpoints(store, make_signer(), "run_1", 2, 0).delete_all()
    assert notes(store).read("sweep-0.001") is None
    assert notes(store, stage=1).read("sweep-0.001") == 1.5
