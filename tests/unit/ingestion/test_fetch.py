"""Fetching from buckets, the choice of a fetcher, and the settings that allow buckets and hosts."""

import base64
from typing import Any

import pytest
from pydantic import ValidationError

from services.ingestion.adapters.fetch import BucketFetcher, SchemeFetcher
from services.ingestion.adapters.https import HttpsFetcher, make_context
from services.ingestion.domain import File, FileReference, Rejected, RejectionReason
from services.ingestion.settings import Settings, decode_buckets, decode_hosts
from tailor.errors import PermissionDenied, Reason, Unavailable
from tailor.storage.memory import MemoryStore

KEY = base64.b64encode(b"k" * 32).decode()


class ClosedStore(MemoryStore):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def read_bounded(self, bucket: str, key: str, max_bytes: int) -> tuple[bytes, str]:
        raise self._error


def make_fetcher(store: MemoryStore) -> SchemeFetcher:
    return SchemeFetcher(BucketFetcher(["papers"], store), HttpsFetcher([], make_context(None), 1))


def rejection_of(uri: str, store: MemoryStore) -> RejectionReason:
    with pytest.raises(Rejected) as caught:
        make_fetcher(store).fetch(FileReference(uri), 10)
    return caught.value.reason


def make_settings(**fields: Any) -> Settings:
    return Settings(digest_key=KEY, quarantine_key=KEY, **fields)


def test_reads_an_object_of_an_allowed_bucket() -> None:
    store = MemoryStore()
    store.put("papers", "2026/memo 7.md", b"# Memo")
    assert make_fetcher(store).fetch(FileReference("s3://papers/2026/memo 7.md"), 10) == File(b"# Memo", "memo 7.md")
    assert make_fetcher(store).fetch(FileReference("s3://papers/2026/memo 7.md", "a.txt"), 10).name == "a.txt"


@pytest.mark.parametrize(
    "uri",
    [
        "s3://quarantine/documents/x",
        "s3://corpus/documents/x",
        "s3://papers.evil/x",
        "s3://Papers/x",
        "s3://papers@evil/x",
        "s3://papers",
        "s3://papers/",
        "s3://papers/../quarantine/x",
        "s3://papers/a/../../quarantine/x",
        "s3://papers/a//b",
        "s3://papers/./x",
        "s3://papers/..",
        "s3:///x",
        "S3://papers/x",
        "http://files.example.com/",
        "https://files.example.com/",
        "file:///etc/passwd",
        "data:text/plain,x",
        "papers/x",
        "",
    ],
)
def test_only_objects_of_allowed_buckets_are_read(uri: str) -> None:
    assert rejection_of(uri, ClosedStore(AssertionError())) == RejectionReason.NOT_ALLOWED


def test_the_reason_says_why_an_object_cannot_be_read() -> None:
    store = MemoryStore()
    store.put("papers", "long", b"x" * 11)
    assert rejection_of("s3://papers/long", store) == RejectionReason.TOO_LARGE
    assert rejection_of("s3://papers/missing", store) == RejectionReason.UNREACHABLE
    assert (
        rejection_of("s3://papers/x", ClosedStore(PermissionDenied(Reason("NO"), "No."))) == RejectionReason.NOT_ALLOWED
    )
    with pytest.raises(Unavailable):
        make_fetcher(ClosedStore(Unavailable(Reason("DOWN"), "Down."))).fetch(FileReference("s3://papers/x"), 10)


def test_nothing_is_allowed_by_default() -> None:
    settings = make_settings()
    assert decode_buckets(settings.fetch_buckets) == [] and decode_hosts(settings.fetch_hosts) == []


def test_a_host_may_have_a_port() -> None:
    settings = make_settings(fetch_hosts="files.example.com, files.example.com:8443", fetch_buckets="papers,old.papers")
    assert decode_hosts(settings.fetch_hosts) == [("files.example.com", 443), ("files.example.com", 8443)]
    assert decode_buckets(settings.fetch_buckets) == ["papers", "old.papers"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fetch_hosts", "127.0.0.1"),
        ("fetch_hosts", "127.0.0.0x1"),
        ("fetch_hosts", "0x7f.0x1"),
        ("fetch_hosts", "localhost"),
        ("fetch_hosts", "*.example.com"),
        ("fetch_hosts", "Files.example.com"),
        ("fetch_hosts", "files.example.com."),
        ("fetch_hosts", "https://files.example.com"),
        ("fetch_hosts", "[::1]"),
        ("fetch_buckets", "quarantine"),
        ("fetch_buckets", "papers,corpus"),
        ("fetch_buckets", "Papers"),
        ("fetch_buckets", "papers/x"),
    ],
)
def test_invalid_hosts_and_buckets_prevent_the_start(name: str, value: str) -> None:
    with pytest.raises(ValidationError):
        make_settings(**{name: value})


def test_buckets_of_publishers_have_no_prefix_and_tailors_own_are_refused_by_their_full_name() -> None:
    settings = make_settings(s3_bucket_prefix="acme-", fetch_buckets="papers")
    assert settings.fetch_store().s3_bucket_prefix == ""
    with pytest.raises(ValidationError, match="acme-corpus"):
        make_settings(s3_bucket_prefix="acme-", fetch_buckets="papers,acme-corpus")


def test_references_use_ingestions_own_store_unless_another_is_set() -> None:
    own = make_settings(s3_endpoint="a:9000", s3_access_key="own", s3_secret_key="own-secret")
    assert own.fetch_store() == own
    other = make_settings(
        s3_endpoint="a:9000", fetch_s3_endpoint="b:443", fetch_s3_access_key="read", fetch_s3_secret_key="read-secret"
    ).fetch_store()
    assert (other.s3_endpoint, other.s3_secure, other.s3_access_key) == ("b:443", True, "read")
    assert other.s3_secret_key.get_secret_value() == "read-secret"
