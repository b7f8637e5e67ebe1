"""The name of immutable bytes in object storage."""

from dataclasses import dataclass

from tailor.errors import InvalidArgument, Reason


@dataclass(frozen=True)
class Ref:
    """Where bytes are (`s3://BUCKET/KEY`), what they hash to (64 hexadecimal digits) and how many they are."""

    uri: str
    sha256: str
    size_bytes: int

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self._split()[0]

    @property
    def key(self) -> str:
        """The key within the bucket."""
        return self._split()[1]

    def _split(self) -> tuple[str, str]:
        scheme, _, rest = self.uri.partition("://")
        bucket, _, key = rest.partition("/")
        if scheme != "s3" or not bucket or not key or ".." in key.split("/"):
            raise InvalidArgument(Reason.INVALID_OBJECT_URI, "An object's address has the form s3://BUCKET/KEY.")
        return bucket, key
