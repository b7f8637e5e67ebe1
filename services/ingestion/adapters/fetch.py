"""Files published by reference: objects in allowed buckets and files on allowed https hosts."""

import re
from collections.abc import Collection
from typing import Self

from services.ingestion.adapters.https import HttpsFetcher
from services.ingestion.domain import File, FileReference, Rejected, RejectionReason, base_name
from services.ingestion.ports import Fetcher
from services.ingestion.settings import Settings, decode_buckets
from tailor.errors import FailedPrecondition, NotFound, PermissionDenied
from tailor.storage.protocol import ObjectStore
from tailor.storage.s3 import S3Store

OBJECT_URI = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(?P<key>[^\x00-\x1f\x7f]{1,1024})")


class BucketFetcher(Fetcher):
    """Reads objects from allowed buckets."""

    def __init__(self, buckets: Collection[str], store: ObjectStore) -> None:
        self._buckets = frozenset(buckets)
        self._store = store

    def fetch(self, reference: FileReference, max_bytes: int) -> File:
        match = OBJECT_URI.fullmatch(reference.uri)
        if match is None or {"", ".", ".."} & set(match["key"].split("/")):
            raise Rejected(RejectionReason.NOT_ALLOWED, "The `uri` of an object must have the form s3://BUCKET/KEY.")
        bucket, key = match["bucket"], match["key"]
        if bucket not in self._buckets:
            raise Rejected(
                RejectionReason.NOT_ALLOWED,
                "The bucket is not allowed. Ask an operator to add it to TAILOR_FETCH_BUCKETS.",
            )
        try:
            data, content_type = self._store.read_bounded(bucket, key, max_bytes)
        except NotFound:
            raise Rejected(
                RejectionReason.UNREACHABLE, "The object does not exist. Check its bucket and key."
            ) from None
        except PermissionDenied:
            raise Rejected(
                RejectionReason.NOT_ALLOWED,
                "Ingestion's credentials cannot read the object. Ask an operator to grant access.",
            ) from None
        except FailedPrecondition:
            raise Rejected(
                RejectionReason.TOO_LARGE, f"The file is larger than {max_bytes // 2**20} MiB. Publish it in parts."
            ) from None
        return File(data, base_name(reference.name or key), reference.content_type or content_type)


class SchemeFetcher(Fetcher):
    """Chooses the fetcher by the scheme of the URI."""

    def __init__(self, buckets: BucketFetcher, hosts: HttpsFetcher) -> None:
        self._schemes: dict[str, Fetcher] = {"s3": buckets, "https": hosts}

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        store = S3Store.from_settings(settings.fetch_store())
        return cls(BucketFetcher(decode_buckets(settings.fetch_buckets), store), HttpsFetcher.from_settings(settings))

    def fetch(self, reference: FileReference, max_bytes: int) -> File:
        fetcher = self._schemes.get(reference.uri.partition("://")[0])
        if fetcher is None:
            raise Rejected(RejectionReason.NOT_ALLOWED, "`uri` must be s3://BUCKET/KEY or https://HOST/...")
        return fetcher.fetch(reference, max_bytes)
