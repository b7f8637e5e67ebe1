"""The object store's twin in memory, for tests."""

import hashlib
from pathlib import Path

from tailor.errors import FailedPrecondition, NotFound, Reason
from tailor.storage.ref import Ref


class MemoryStore:
    """Keeps objects in a dictionary; `objects` may be looked at and tampered with by tests."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], bytes] = {}

    def put(self, bucket: str, key: str, data: bytes, content_type: str = "application/octet-stream") -> Ref:
        """Store bytes."""
        del content_type
        self.objects[bucket, key] = data
        return Ref(f"s3://{bucket}/{key}", hashlib.sha256(data).hexdigest(), len(data))

    def put_file(self, bucket: str, key: str, path: Path, content_type: str = "application/octet-stream") -> Ref:
        """Store a file's bytes."""
        return self.put(bucket, key, path.read_bytes(), content_type)

    def get(self, ref: Ref) -> bytes:
        """The verified bytes."""
        data = self.read(ref.bucket, ref.key)
        if len(data) != ref.size_bytes or hashlib.sha256(data).hexdigest() != ref.sha256:
            raise FailedPrecondition(
                Reason.CORRUPT_OBJECT, "The object's size or digest differs from its reference.", uri=ref.uri
            )
        return data

    def get_file(self, ref: Ref, path: Path) -> None:
        """The verified bytes into a file."""
        data = self.get(ref)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def read(self, bucket: str, key: str) -> bytes:
        """The bytes, unverified."""
        if (bucket, key) not in self.objects:
            raise NotFound(Reason.UNKNOWN_OBJECT, "There is no such object.", bucket=bucket, key=key)
        return self.objects[bucket, key]

    def read_bounded(self, bucket: str, key: str, max_bytes: int) -> tuple[bytes, str]:
        """The bytes, unverified, and no media type."""
        data = self.read(bucket, key)
        if len(data) > max_bytes:
            raise FailedPrecondition(Reason.OBJECT_TOO_LARGE, "The object is over the limit.", bucket=bucket)
        return data, ""

    def exists(self, bucket: str, key: str) -> bool:
        """True if there is such an object."""
        return (bucket, key) in self.objects

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object."""
        self.objects.pop((bucket, key), None)

    def list_keys(self, bucket: str, prefix: str) -> list[str]:
        """All keys that begin with the prefix, in order."""
        return sorted(key for held, key in self.objects if held == bucket and key.startswith(prefix))
