"""Every stored object is read once, and those that are damaged are named."""

import hashlib

import pytest

from services.registry.object_verification import VERIFIED, VerifiedObjects, verify_objects
from tailor.storage.buckets import QUARANTINE
from tailor.storage.memory import MemoryStore


def named(store: MemoryStore, bucket: str, form: str, data: bytes) -> str:
    """Store an object whose key has its digest. Returns its key."""
    key = form.format(hashlib.sha256(data).hexdigest())
    store.put(bucket, key, data)
    return key


def verify(store: MemoryStore, seconds: float = 60.0) -> list[VerifiedObjects]:
    """All pages."""
    pages = [verify_objects(store, "", seconds)]
    while pages[-1].last:
        pages.append(verify_objects(store, pages[-1].last, seconds))
    return pages


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    for bucket, form in (
        ("corpus", "documents/{}"),
        ("datasets", "files/{}.parquet"),
        ("datasets", "{}/manifest.json"),
        ("drafts", "drawn/{}.json"),
        ("models", "adapters/files/{}"),
        ("models", "adapters/{}/manifest.json"),
    ):
        named(store, bucket, form, f"{bucket} {form}".encode())
    store.put("models", "bases/tiny/manifest.json", b"{}")
    store.put("reports", "evl_1/report.json", b"{}")
    store.put(QUARANTINE, "kept/doc_1/1-1", b"?")
    return store


def test_whole_objects_are_counted_and_none_is_damaged(store: MemoryStore) -> None:
    (page,) = verify(store)
    assert (page.objects, page.unnamed, page.damaged) == (8, 2, [])
    assert page.size_bytes == sum(len(data) for (bucket, _), data in store.objects.items() if bucket in VERIFIED)


def test_a_page_ends_in_time_and_the_next_goes_on_behind_it(store: MemoryStore) -> None:
    pages = verify(store, seconds=-1.0)
    assert [page.objects for page in pages] == [1] * 8


def test_each_damaged_object_is_named_once(store: MemoryStore) -> None:
    wanted = set()
    for bucket, key in list(store.objects):
        if bucket in ("corpus", "models") and "tiny" not in key:
            store.objects[bucket, key] = store.objects[bucket, key][:-1] + b"?"
            wanted.add(f"s3://{bucket}/{key}")
    for seconds in (60.0, -1.0):
        damaged = [entry for page in verify(store, seconds) for entry in page.damaged]
        assert {uri for uri, _ in damaged} == wanted and len(damaged) == len(wanted) == 3
        assert all(digest in uri for uri, digest in damaged)


def test_an_object_that_is_deleted_meanwhile_is_skipped(store: MemoryStore) -> None:
    class Forgetful(MemoryStore):
        def list_keys(self, bucket: str, prefix: str) -> list[str]:
            return [*super().list_keys(bucket, prefix), "zz/gone"]

    forgetful = Forgetful()
    forgetful.objects = store.objects
    (page,) = verify(forgetful)
    assert (page.objects, page.damaged) == (8, [])
