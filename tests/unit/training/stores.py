"""An object store in a directory, and a signer."""

import hashlib
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tailor.errors import FailedPrecondition, NotFound, Reason
from tailor.rpc.identity import Identity
from tailor.storage.ref import Ref, corrupt_object


class FileStore:
    """An object store in a directory, for tests with a worker in another process."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, bucket: str, key: str, data: bytes, content_type: str = "application/octet-stream") -> Ref:
        del content_type
        path = self.root / bucket / key
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.part")
        partial.write_bytes(data)
        partial.replace(path)
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
        try:
            return (self.root / bucket / key).read_bytes()
        except FileNotFoundError:
            raise NotFound(Reason.UNKNOWN_OBJECT, "There is no such object.") from None

    def read_bounded(self, bucket: str, key: str, max_bytes: int) -> tuple[bytes, str]:
        data = self.read(bucket, key)
        if len(data) > max_bytes:
            raise FailedPrecondition(Reason.OBJECT_TOO_LARGE, "The object is over the limit.")
        return data, ""

    def measure(self, bucket: str, key: str) -> Ref:
        data = self.read(bucket, key)
        return Ref(f"s3://{bucket}/{key}", hashlib.sha256(data).hexdigest(), len(data))

    def exists(self, bucket: str, key: str) -> bool:
        return (self.root / bucket / key).exists()

    def delete(self, bucket: str, key: str) -> None:
        (self.root / bucket / key).unlink(missing_ok=True)

    def list_keys(self, bucket: str, prefix: str) -> list[str]:
        root = self.root / bucket
        files = (path for path in root.rglob("*") if path.is_file() and not path.name.startswith("."))
        return sorted(key for key in (str(path.relative_to(root)) for path in files) if key.startswith(prefix))


def make_signer(key: bytes = b"the workers'") -> Identity:
    """The workers' identity, the same in every process."""
    return Identity("training-worker", Ed25519PrivateKey.from_private_bytes(key.ljust(32)))
