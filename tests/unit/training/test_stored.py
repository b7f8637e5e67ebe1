"""Datasets and adapters by the digest of their manifest."""

import hashlib
import json
from typing import Any

import pytest

from services.training.adapters.manifests import StoredAdapters, StoredDatasets, find_split
from tailor.errors import FailedPrecondition, NotFound
from tailor.storage.memory import MemoryStore
from tailor.storage.ref import Ref

SFT = {"kind": "sft", "specialist": "reports", "teacher": {"tokens": 1200}}
PREFERENCE = {"kind": "preference", "specialist": "reports", "judgements": ["jdg_1", "jdg_2"]}
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
    sft, preference = (put(store, "datasets", "", manifest) for manifest in (SFT, PREFERENCE))
    found = StoredDatasets(store).find(sft)
    assert (found.kind, found.specialist, found.teacher_tokens, found.judgements) == ("sft", "reports", 1200, 0)
    assert store.get(found.manifest) == json.dumps(SFT).encode()
    assert StoredDatasets(store).find(preference).judgements == 2


def test_adapter_is_read_from_its_manifest() -> None:
    store = MemoryStore()
    found = StoredAdapters(store).find(put(store, "models", "adapters/", ADAPTER))
    assert (found.kind, found.weights, found.specialist, found.base) == ("policy", "adapter", "reports", "tiny")
    assert found.shape == {"r": 4}


def test_missing_and_altered_manifests_are_rejected() -> None:
    store = MemoryStore()
    store.put("models", "adapters/a1/manifest.json", json.dumps(ADAPTER).encode())
    with pytest.raises(NotFound, match="adapter"):
        StoredAdapters(store).find("a0")
    with pytest.raises(NotFound, match="dataset"):
        StoredDatasets(store).find("d0")
    with pytest.raises(FailedPrecondition):
        StoredAdapters(store).find("a1")


@pytest.mark.parametrize("manifest", [[], "text", {}, {"kind": "sft"}, {**SFT, "teacher": {"tokens": "many"}}])
def test_incomplete_manifest_is_rejected(manifest: Any) -> None:
    store = MemoryStore()
    with pytest.raises(FailedPrecondition) as refused:
        StoredDatasets(store).find(put(store, "datasets", "", manifest))
    assert refused.value.reason == "INVALID_MANIFEST"
    with pytest.raises(FailedPrecondition):
        StoredAdapters(store).find(put(store, "models", "adapters/", manifest))


def test_split_is_read_or_missing_or_rejected() -> None:
    rows = {"key": "files/r.parquet", "sha256": "5", "size_bytes": 7, "rows": 1}
    assert find_split(json.dumps({"splits": {"train": rows}}).encode(), "train") == Ref(
        "s3://datasets/files/r.parquet", "5", 7
    )
    for empty in ("{}", '{"splits": {}}', '{"splits": {"train": null}}', json.dumps({"splits": {"held_out": rows}})):
        assert find_split(empty.encode(), "train") is None
    for wrong in (b"[]", b"{", b"\xff", b'{"splits": []}', b'{"splits": {"train": {"key": "r"}}}'):
        with pytest.raises(FailedPrecondition) as refused:
            find_split(wrong, "train")
        assert refused.value.reason == "INVALID_MANIFEST"
