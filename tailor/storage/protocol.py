"""What services need of an object store."""

from pathlib import Path
from typing import Protocol

from tailor.storage.ref import Ref


class ObjectStore(Protocol):
    """Immutable bytes by bucket and key. Every method may block, and raises Unavailable while the store does not answer,
    PermissionDenied where the service's credentials do not reach, NotFound for what is not there."""

    def put(self, bucket: str, key: str, data: bytes, content_type: str = "application/octet-stream") -> Ref:
        """Store bytes; the same key again replaces them."""
        ...

    def put_file(self, bucket: str, key: str, path: Path, content_type: str = "application/octet-stream") -> Ref:
        """Store a file's bytes without holding them in memory."""
        ...

    def get(self, ref: Ref) -> bytes:
        """The bytes; FailedPrecondition (CORRUPT_OBJECT) where size or digest differ."""
        ...

    def get_file(self, ref: Ref, path: Path) -> None:
        """The bytes into a file, which appears only once they are verified."""
        ...

    def read(self, bucket: str, key: str) -> bytes:
        """The bytes, unverified: for manifests that are found by name."""
        ...

    def read_bounded(self, bucket: str, key: str, max_bytes: int) -> tuple[bytes, str]:
        """The bytes of an object that outsiders wrote, unverified, and its media type; FailedPrecondition (OBJECT_TOO_LARGE) where it has
        more, of which no more is read."""
        ...

    def exists(self, bucket: str, key: str) -> bool:
        """True if there is such an object."""
        ...

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object; nothing happens where there is none."""
        ...

    def list_keys(self, bucket: str, prefix: str) -> list[str]:
        """All keys that begin with the prefix, in order."""
        ...
