"""Choosing how to fetch, buckets, and the settings that allow it."""

import base64
from typing import Any

import pytest
from pydantic import ValidationError

from services.ingestion.adapters.fetch import BucketFetcher, References
from services.ingestion.adapters.https import HttpsFetcher, trust
from services.ingestion.domain import File, Reference, Rejected, RejectionReason
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


def references(store: MemoryStore) -> References:
    return References(BucketFetcher(["papers"], store), HttpsFetcher([], trust(None), 1))


def refusal(uri: str, store: MemoryStore) -> RejectionReason:
    with pytest.raises(Rejected) as caught:
        references(store).fetch(Reference(uri), 10)
    return caught.value.reason


def make_settings(**said: Any) -> Settings:
    return Settings(digest_key=KEY, quarantine_key=KEY, **said)  # type: ignore[arg-type]


def test_reads_an_object_of_an_allowed_bucket() -> None:
    store = MemoryStore()
    store.put("papers", "2026/memo 7.md", b"# Memo")
    assert references(store).fetch(Reference("s3://papers/2026/memo 7.md"), 10) == File(b"# Memo", "memo 7.md")
    assert references(store).fetch(Reference("s3://papers/2026/memo 7.md", "a.txt"), 10).name == "a.txt"


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
def test_nothing_but_an_object_of_an_allowed_bucket_is_read(uri: str) -> None:
    assert refusal(uri, ClosedStore(AssertionError())) == RejectionReason.NOT_ALLOWED


def test_says_why_an_object_cannot_be_had() -> None:
    store = MemoryStore()
    store.put("papers", "long", b"x" * 11)
    assert refusal("s3://papers/long", store) == RejectionReason.TOO_LARGE
    assert refusal("s3://papers/missing", store) == RejectionReason.UNREACHABLE
    assert refusal("s3://papers/x", ClosedStore(PermissionDenied(Reason("NO"), "No."))) == RejectionReason.NOT_ALLOWED
    with pytest.raises(Unavailable):
        references(ClosedStore(Unavailable(Reason("DOWN"), "Down."))).fetch(Reference("s3://papers/x"), 10)


def test_nothing_is_allowed_by_default() -> None:
    settings = make_settings()
    assert decode_buckets(settings.fetch_buckets) == [] and decode_hosts(settings.fetch_hosts) == []


def test_hosts_have_a_port_of_their_own_where_one_is_named() -> None:
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
def test_a_wrong_allowance_is_not_started_with(name: str, value: str) -> None:
    with pytest.raises(ValidationError):
        make_settings(**{name: value})


def test_the_store_of_references_is_ingestions_own_unless_another_is_named() -> None:
    own = make_settings(s3_endpoint="a:9000", s3_access_key="own", s3_secret_key="own-secret")
    assert own.fetch_store() == own
    other = make_settings(
        s3_endpoint="a:9000", fetch_s3_endpoint="b:443", fetch_s3_access_key="read", fetch_s3_secret_key="read-secret"
    ).fetch_store()
    assert (other.s3_endpoint, other.s3_secure, other.s3_access_key) == ("b:443", True, "read")
    assert other.s3_secret_key.get_secret_value() == "read-secret"
