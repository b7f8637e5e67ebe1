"""The object store over S3, each service with its own credentials."""

import hashlib
from pathlib import Path

import pytest

from tailor.errors import FailedPrecondition, NotFound, PermissionDenied, Unavailable
from tailor.settings import ServiceSettings
from tailor.storage.buckets import ACCESS, BUCKETS, CORPUS, DATASETS, MODELS, QUARANTINE, split_scope
from tailor.storage.ref import Ref
from tailor.storage.s3 import S3Store
from tests.conftest import Stores

pytestmark = pytest.mark.integration


def _store(stores: Stores, service: str) -> S3Store:
    return S3Store.from_settings(stores.s3(service))


def test_reads_back_verified_bytes(stores: Stores, tmp_path: Path) -> None:
    store = _store(stores, "synthetic")
    ref = store.put(DATASETS, "test/rows", b"rows")
    assert ref == Ref("s3://datasets/test/rows", hashlib.sha256(b"rows").hexdigest(), 4)
    assert store.get(ref) == b"rows"
    store.get_file(ref, tmp_path / "deep" / "rows")
    assert (tmp_path / "deep" / "rows").read_bytes() == b"rows"
    assert store.put_file(DATASETS, "test/copy", tmp_path / "deep" / "rows").sha256 == ref.sha256
    assert store.list_keys(DATASETS, "test/") == ["test/copy", "test/rows"]
    assert store.list_keys(DATASETS, "test//") == []


def test_refuses_changed_bytes_and_leaves_no_file(stores: Stores, tmp_path: Path) -> None:
    store = _store(stores, "synthetic")
    ref = store.put(DATASETS, "test/tampered", b"true")
    store.put(DATASETS, "test/tampered", b"fals")
    with pytest.raises(FailedPrecondition):
        store.get(ref)
    with pytest.raises(FailedPrecondition):
        store.get_file(ref, tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_object_is_not_found(stores: Stores) -> None:
    store = _store(stores, "training")
    assert not store.exists(MODELS, "test/none")
    with pytest.raises(NotFound):
        store.read(MODELS, "test/none")
    store.delete(MODELS, "test/none")


def test_an_absent_store_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        S3Store.from_settings(ServiceSettings(s3_endpoint="127.0.0.1:1")).exists(MODELS, "x")


@pytest.mark.parametrize("service", [name for name, rights in ACCESS.items() if rights])
def test_a_service_reaches_only_its_own_buckets(stores: Stores, service: str) -> None:
    store = _store(stores, service)
    readable = {split_scope(scope)[0] for scope in ACCESS[service]}
    for bucket in BUCKETS:
        if bucket in readable:
            store.list_keys(bucket, "test/")
        else:
            with pytest.raises(PermissionDenied):
                store.list_keys(bucket, "test/")
        if bucket not in ACCESS[service]:
            with pytest.raises(PermissionDenied):
                store.read(bucket, "test/any")
        if "w" not in ACCESS[service].get(bucket, ""):
            with pytest.raises(PermissionDenied):
                store.put(bucket, "test/intruder", b"x")


def test_synthetic_reads_bases_but_no_adapters(stores: Stores) -> None:
    training, synthetic = _store(stores, "training"), _store(stores, "synthetic")
    base = training.put(MODELS, "bases/test/manifest.json", b"{}")
    adapter = training.put(MODELS, "adapters/test/manifest.json", b"{}")
    assert synthetic.get(base) == b"{}"
    with pytest.raises(NotFound):
        synthetic.read(MODELS, "bases/missing/manifest.json")
    with pytest.raises(PermissionDenied):
        synthetic.get(adapter)
    with pytest.raises(PermissionDenied):
        synthetic.put(MODELS, "bases/test/manifest.json", b"x")


@pytest.mark.parametrize("service", [name for name in ACCESS if name not in ("ingestion", "anonymization")])
def test_no_service_beyond_the_barrier_reaches_quarantine(stores: Stores, service: str) -> None:
    assert QUARANTINE not in ACCESS[service]
    if not ACCESS[service]:
        assert stores.settings(service, ServiceSettings).s3_access_key == ""
        return
    with pytest.raises(PermissionDenied):
        _store(stores, service).list_keys(QUARANTINE, "")


def test_only_anonymization_writes_the_corpus() -> None:
    assert [service for service, rights in ACCESS.items() if "w" in rights.get(CORPUS, "")] == ["anonymization"]
