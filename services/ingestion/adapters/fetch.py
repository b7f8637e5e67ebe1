"""Files that are published by reference: objects of allowed buckets, and files of allowed https hosts."""

import re
from collections.abc import Collection

from services.ingestion.adapters.https import HttpsFetcher
from services.ingestion.domain import Fetcher, File, Reference, Rejected, RejectionReason, plain_name
from tailor.errors import FailedPrecondition, NotFound, PermissionDenied
from tailor.storage.protocol import ObjectStore

OBJECT_URI = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(?P<key>[^\x00-\x1f\x7f]{1,1024})")


class BucketFetcher:
    """Reads objects of allowed buckets."""

    def __init__(self, buckets: Collection[str], store: ObjectStore) -> None:
        self._buckets = frozenset(buckets)
        self._store = store

    def fetch(self, reference: Reference, max_bytes: int) -> File:
        """The object; Rejected or Unavailable as the domain's Fetcher says."""
        match = OBJECT_URI.fullmatch(reference.uri)
        if match is None or {"", ".", ".."} & set(match["key"].split("/")):
            raise Rejected(RejectionReason.NOT_ALLOWED, "An object's address has the form s3://BUCKET/KEY.")
        bucket, key = match["bucket"], match["key"]
        if bucket not in self._buckets:
            raise Rejected(
                RejectionReason.NOT_ALLOWED,
                "This bucket is not among those that are allowed (TAILOR_FETCH_BUCKETS); ask an operator.",
            )
        try:
            data, content_type = self._store.read_bounded(bucket, key, max_bytes)
        except NotFound:
            raise Rejected(RejectionReason.UNREACHABLE, "There is no such object; check bucket and key.") from None
        except PermissionDenied:
            raise Rejected(
                RejectionReason.NOT_ALLOWED,
                "Ingestion's credentials do not reach the object; ask an operator to let them read it.",
            ) from None
        except FailedPrecondition:
            raise Rejected(
                RejectionReason.TOO_LARGE, f"The file has over {max_bytes // 2**20} MiB; publish it in parts."
            ) from None
        return File(data, plain_name(reference.name or key), reference.content_type or content_type)


class References:
    """Chooses by the address's scheme."""

    def __init__(self, buckets: BucketFetcher, hosts: HttpsFetcher) -> None:
        self._schemes: dict[str, Fetcher] = {"s3": buckets, "https": hosts}

    def fetch(self, reference: Reference, max_bytes: int) -> File:
        """The file; Rejected for an address of another kind."""
        fetcher = self._schemes.get(reference.uri.partition("://")[0])
        if fetcher is None:
            raise Rejected(
                RejectionReason.NOT_ALLOWED,
                "A reference is s3://BUCKET/KEY or https://HOST/...; nothing else is fetched.",
            )
        return fetcher.fetch(reference, max_bytes)
