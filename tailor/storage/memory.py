"""An object store in memory, for tests."""

import hashlib
from pathlib import Path

from tailor.errors import FailedPrecondition, NotFound, Reason
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref, corrupt_object


class MemoryStore(ObjectStore):
    """Keeps objects in the dictionary `objects`, which tests may read and change."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], bytes] = {}

    def put(self, bucket: str, key: str, data: bytes, content_type: str = "application/octet-stream") -> Ref:
        del content_type
        self.objects[bucket, key] = data
        return Ref(f"s3://{bucket}/{key}", hashlib.sha256(data).hexdigest(), len(data))

    def put_file(self, bucket: str, key: str, path: Path, content_type: str = "application/octet-stream") -> Ref:
        return self.put(bucket, key, path.read_bytes(), content_type)

    def get(self, ref: Ref) -> bytes:
        data = self.read(ref.bucket, ref.key)
        if len(data) != ref.size_bytes or hashlib.sha256(data).hexdigest() != ref.sha256:
            raise corrupt_object(ref.uri)
        return data

    def get_file(self, ref: Ref, path: Path) -> None:
        data = self.get(ref)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def read(self, bucket: str, key: str) -> bytes:
        if (bucket, key) not in self.objects:
            raise NotFound(Reason.UNKNOWN_OBJECT, "The object does not exist.", bucket=bucket, key=key)
        return self.objects[bucket, key]

    def read_bounded(self, bucket: str, key: str, max_bytes: int) -> tuple[bytes, str]:
        data = self.read(bucket, key)
        if len(data) > max_bytes:
            raise FailedPrecondition(Reason.OBJECT_TOO_LARGE, "The object is larger than allowed.", bucket=bucket)
        return data, ""

    def measure(self, bucket: str, key: str) -> Ref:
        data = self.read(bucket, key)
        return Ref(f"s3://{bucket}/{key}", hashlib.sha256(data).hexdigest(), len(data))

    def exists(self, bucket: str, key: str) -> bool:
        return (bucket, key) in self.objects

    def delete(self, bucket: str, key: str) -> None:
        self.objects.pop((bucket, key), None)

    def list_keys(self, bucket: str, prefix: str) -> list[str]:
        return sorted(key for holder, key in self.objects if holder == bucket and key.startswith(prefix))
