"""The Protocol of an object store, which `s3.py` implements, and `memory.py` for tests."""

from pathlib import Path
from typing import Protocol

from tailor.storage.ref import Ref


class ObjectStore(Protocol):
    """Immutable bytes by bucket and key.

    Every method may block. Raises Unavailable while the store does not answer, PermissionDenied for a bucket that the service's credentials
    do not cover, and NotFound for an object that does not exist.
    """

    def put(self, bucket: str, key: str, data: bytes, content_type: str = "application/octet-stream") -> Ref:
        """Store bytes. Replaces an object of the same key."""
        ...

    def put_file(self, bucket: str, key: str, path: Path, content_type: str = "application/octet-stream") -> Ref:
        """Store a file's bytes without holding them in memory."""
        ...

    def get(self, ref: Ref) -> bytes:
        """Read and verify an object. Raises FailedPrecondition (CORRUPT_OBJECT) if its size or digest differs."""
        ...

    def get_file(self, ref: Ref, path: Path) -> None:
        """Write an object to a file, which appears only after verification. Raises FailedPrecondition (CORRUPT_OBJECT)."""
        ...

    def read(self, bucket: str, key: str) -> bytes:
        """Read an object without verification, such as a manifest that is found by name."""
        ...

    def read_bounded(self, bucket: str, key: str, max_bytes: int) -> tuple[bytes, str]:
        """Read an object that outsiders wrote, without verification, and its media type.

        Raises FailedPrecondition (OBJECT_TOO_LARGE) as soon as more than `max_bytes` were read.
        """
        ...

    def measure(self, bucket: str, key: str) -> Ref:
        """Read an object, without holding it in memory, and return the reference that it has by its bytes."""
        ...

    def exists(self, bucket: str, key: str) -> bool:
        """True if the object exists."""
        ...

    def delete(self, bucket: str, key: str) -> None:
        """Delete an object. Idempotent."""
        ...

    def list_keys(self, bucket: str, prefix: str) -> list[str]:
        """List all keys that begin with the prefix, sorted."""
        ...
