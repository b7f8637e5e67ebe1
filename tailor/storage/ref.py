"""References to immutable bytes in object storage."""

from dataclasses import dataclass

from tailor.errors import CorruptObject, InvalidArgument, Reason


@dataclass(frozen=True)
class Ref:
    """An object's address (`s3://BUCKET/KEY`), its SHA-256 (64 hexadecimal digits) and its size."""

    uri: str
    sha256: str
    size_bytes: int

    @property
    def bucket(self) -> str:
        return self._split()[0]

    @property
    def key(self) -> str:
        return self._split()[1]

    def _split(self) -> tuple[str, str]:
        scheme, _, rest = self.uri.partition("://")
        bucket, _, key = rest.partition("/")
        if scheme != "s3" or not bucket or not key or ".." in key.split("/"):
            raise InvalidArgument(
                Reason.INVALID_OBJECT_URI, "The address of an object must have the form s3://BUCKET/KEY."
            )
        return bucket, key


def corrupt_object(uri: str) -> CorruptObject:
    """The error for an object that does not verify."""
    return CorruptObject(
        Reason.CORRUPT_OBJECT, f"{uri} is damaged. Restore it from a backup, or make it again.", uri=uri
    )
