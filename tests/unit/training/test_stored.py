"""Datasets and adapters by the digest of their manifest."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from services.training.adapters.inputs import download_split
from services.training.adapters.manifests import find_adapter, find_dataset, read_document_ids
from tailor.datasets import DatasetManifest
from tailor.errors import FailedPrecondition, NotFound
from tailor.storage.memory import MemoryStore
from tailor.values import DatasetKind
from tests.datasets import store_dataset, store_ids

ROWS = [{"row_id": f"row_{number}", "document_ids": [f"doc_{number}"]} for number in range(5)]
SFT = DatasetManifest(DatasetKind.SFT, "reports", splits={}, teacher_tokens=1200).as_json()
ADAPTER = {
    "kind": "policy",
    "weights": "adapter",
    "specialist": "reports",
    "base": "tiny",
    "recipe": {"adapter": {"r": 4}},
}


def put(store: MemoryStore, bucket: str, prefix: str, manifest: dict[str, Any]) -> str:
    data = json.dumps(manifest).encode()
    digest = hashlib.sha256(data).hexdigest()
    store.put(bucket, f"{prefix}{digest}/manifest.json", data)
    return digest


def test_dataset_is_read_from_its_manifest() -> None:
    store = MemoryStore()
    sft = put(store, "datasets", "", SFT)
    judgements = [{"row_id": "row_1", "judgement_ids": ["jdg_1", "jdg_2"]}]
    preference, _ = store_dataset(store, {"train": judgements}, kind=DatasetKind.PREFERENCE)
    found = find_dataset(store, sft)
    assert (found.kind, found.specialist, found.teacher_tokens, found.judgements) == ("sft", "reports", 1200, 0)
    assert store.get(found.manifest) == json.dumps(SFT).encode()
    assert find_dataset(store, preference.sha256).judgements == 2


def test_adapter_is_read_from_its_manifest() -> None:
    store = MemoryStore()
    found = find_adapter(store, put(store, "models", "adapters/", ADAPTER))
    assert (found.kind, found.weights, found.specialist, found.base) == ("policy", "adapter", "reports", "tiny")
    assert found.shape == {"r": 4}


def test_missing_and_altered_manifests_are_rejected() -> None:
    store = MemoryStore()
    store.put("models", "adapters/a1/manifest.json", json.dumps(ADAPTER).encode())
    with pytest.raises(NotFound, match="adapter"):
        find_adapter(store, "a0")
    with pytest.raises(NotFound, match="dataset"):
        find_dataset(store, "d0")
    with pytest.raises(FailedPrecondition):
        find_adapter(store, "a1")


@pytest.mark.parametrize("manifest", [[], "text", {}, {"kind": "sft"}, {**SFT, "teacher": {"tokens": "many"}}])
def test_incomplete_manifest_is_rejected(manifest: Any) -> None:
    store = MemoryStore()
    with pytest.raises(FailedPrecondition) as refused:
        find_dataset(store, put(store, "datasets", "", manifest))
    assert refused.value.reason == "INVALID_MANIFEST"
    with pytest.raises(FailedPrecondition):
        find_adapter(store, put(store, "models", "adapters/", manifest))


def test_a_splits_files_are_downloaded_in_order(tmp_path: Path) -> None:
    store = MemoryStore()
    _, manifest = store_dataset(store, {"train": ROWS}, rows_per_file=2)
    paths = download_split(store, manifest, "train", tmp_path / "train")
    rows = [row for path in paths for row in parquet.read_table(path).to_pylist()]
    assert (len(paths), [row["row_id"] for row in rows]) == (3, [row["row_id"] for row in ROWS])
    assert download_split(store, manifest, "held_out", tmp_path / "held_out") == ()


def test_altered_file_of_a_split_is_refused(tmp_path: Path) -> None:
    store = MemoryStore()
    _, manifest = store_dataset(store, {"train": ROWS})
    store.put("datasets", manifest.split("train").files[0].ref.key, b"something else")
    with pytest.raises(FailedPrecondition, match="CORRUPT_OBJECT"):
        download_split(store, manifest, "train", tmp_path / "train")


def test_ids_of_documents_are_streamed_from_the_manifests_files() -> None:
    store = MemoryStore()
    ref, manifest = store_dataset(store, {"train": ROWS}, rows_per_file=2)
    batches = list(read_document_ids(store, ref))
    assert manifest.sources.count == 5
    assert batches == [["doc_0", "doc_1"], ["doc_2", "doc_3"], ["doc_4"]]


def test_sources_without_ids_are_refused() -> None:
    store = MemoryStore()
    ref, _ = store_dataset(store, {"train": ROWS}, sources=store_ids(store, "judgement_id", ["jdg_1"]))
    with pytest.raises(FailedPrecondition, match="INVALID_DATASET"):
        list(read_document_ids(store, ref))
