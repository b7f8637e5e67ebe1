"""Documents published by reference, from a bucket of the object store."""

import pytest
from minio import Minio
from pydantic import SecretStr

from services.ingestion.adapters.fetch import BucketFetcher
from services.ingestion.domain import File, FileReference, Rejected, RejectionReason
from services.ingestion.settings import Settings
from tailor.local.secrets import ADMIN
from tailor.storage.s3 import S3Store
from tests.conftest import Stores

pytestmark = pytest.mark.integration

BUCKET = "papers"


@pytest.fixture(scope="module")
def settings(stores: Stores) -> Settings:
    """Ingestion's settings, with a key for references that may read the bucket."""
    key, own = stores.s3(ADMIN), stores.settings("ingestion", Settings)
    secret_key = key.s3_secret_key.get_secret_value()
    client = Minio(own.s3_endpoint, key.s3_access_key, secret_key, secure=False, region=own.s3_region)
    client.make_bucket(BUCKET)
    store = S3Store(client)
    store.put(BUCKET, "2026/memo 7.md", b"# Memo", "text/markdown")
    store.put(BUCKET, "long", b"x" * 3_000_000)
    return own.model_copy(
        update={"fetch_s3_access_key": key.s3_access_key, "fetch_s3_secret_key": SecretStr(secret_key)}
    )


def fetcher(settings: Settings) -> BucketFetcher:
    return BucketFetcher([BUCKET], S3Store.from_settings(settings.fetch_store()))


def test_reads_an_object_with_the_key_for_references_up_to_the_limit(settings: Settings) -> None:
    file = fetcher(settings).fetch(FileReference(f"s3://{BUCKET}/2026/memo 7.md"), 2_000_000)
    assert file == File(b"# Memo", "memo 7.md", "text/markdown")
    for key, reason in (("long", RejectionReason.TOO_LARGE), ("missing", RejectionReason.UNREACHABLE)):
        with pytest.raises(Rejected) as caught:
            fetcher(settings).fetch(FileReference(f"s3://{BUCKET}/{key}"), 2_000_000)
        assert caught.value.reason == reason


def test_a_bucket_that_ingestions_own_key_cannot_read_is_not_allowed(settings: Settings) -> None:
    own = settings.model_copy(update={"fetch_s3_access_key": ""})
    with pytest.raises(Rejected) as caught:
        fetcher(own).fetch(FileReference(f"s3://{BUCKET}/2026/memo 7.md"), 2_000_000)
    assert caught.value.reason == RejectionReason.NOT_ALLOWED
