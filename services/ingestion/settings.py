"""Settings of the ingestion service."""

import base64
import binascii
import re
from pathlib import Path

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from tailor.settings import ServiceSettings
from tailor.storage.buckets import BUCKETS

KEY_BYTES = 32
HTTPS_PORT = 443
HOST = re.compile(
    r"(?P<host>(?=.{1,253}(?::|$))[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+)(:(?P<port>[0-9]{1,5}))?"
)
# What resolvers take for an address: a last label of digits, or of 0x and more.
NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class Settings(ServiceSettings):
    """Read from `TAILOR_<FIELD>`. Keys are 32 bytes in base64; limits hold for one document."""

    digest_key: SecretStr
    quarantine_key: SecretStr
    max_file_bytes: int = 20 * 1024 * 1024
    max_chars: int = 6_000_000
    parse_workers: int = 2
    parse_seconds: float = 60.0
    parse_cpu_seconds: int = 45
    parse_memory_bytes: int = 1536 * 1024 * 1024

    # Where documents that are published by reference may lie, separated by commas: buckets, and HOST or HOST:PORT. None by default.
    fetch_buckets: str = ""
    fetch_hosts: str = ""
    # Seconds for one file, redirects included; it is tried four times.
    fetch_seconds: float = Field(30.0, gt=0)
    # Certificate authorities (PEM) beside the system's.
    fetch_ca_file: Path | None = None
    # The store of those buckets and a key that may read them; ingestion's own where empty.
    fetch_s3_endpoint: str = ""
    fetch_s3_secure: bool = True
    fetch_s3_region: str = ""
    fetch_s3_access_key: str = ""
    fetch_s3_secret_key: SecretStr = SecretStr("")

    @field_validator("digest_key", "quarantine_key")
    @classmethod
    def _is_key(cls, value: SecretStr) -> SecretStr:
        decode_key(value)
        return value

    @field_validator("fetch_hosts", "fetch_buckets")
    @classmethod
    def _is_list(cls, value: str, info: ValidationInfo) -> str:
        (decode_hosts if info.field_name == "fetch_hosts" else decode_buckets)(value)
        return value

    def fetch_store(self) -> ServiceSettings:
        """How to reach the store of the buckets that are published by reference."""
        changes: dict[str, object] = {}
        if self.fetch_s3_endpoint:
            changes |= {"s3_endpoint": self.fetch_s3_endpoint, "s3_secure": self.fetch_s3_secure}
        if self.fetch_s3_region:
            changes["s3_region"] = self.fetch_s3_region
        if self.fetch_s3_access_key:
            changes |= {"s3_access_key": self.fetch_s3_access_key, "s3_secret_key": self.fetch_s3_secret_key}
        return self.model_copy(update=changes)


def decode_hosts(value: str) -> list[tuple[str, int]]:
    """Names with their ports; ValueError for what is no name, such as an address."""
    return [_host(part) for part in _parts(value)]


def decode_buckets(value: str) -> list[str]:
    """Names of buckets; ValueError for what is none, and for Tailor's own."""
    buckets = _parts(value)
    if not all(BUCKET.fullmatch(bucket) for bucket in buckets):
        raise ValueError("a bucket's name has 3 to 63 of a-z, 0-9, '.' and '-'")
    if set(buckets) & set(BUCKETS):
        raise ValueError("Tailor's own buckets hold no documents that are published")
    return buckets


def _host(part: str) -> tuple[str, int]:
    match = HOST.fullmatch(part)
    if match is None or NUMERIC.fullmatch(match["host"].rpartition(".")[2]):
        raise ValueError("a host is a full name in lower case, such as files.example.com, perhaps with :PORT")
    return match["host"], int(match["port"] or HTTPS_PORT)


def _parts(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


def decode_key(value: SecretStr) -> bytes:
    """The key's bytes; ValueError where there are not 32."""
    try:
        key = base64.b64decode(value.get_secret_value(), validate=True)
    except binascii.Error:
        raise ValueError("the key is not base64") from None
    if len(key) != KEY_BYTES:
        raise ValueError("the key has not 32 bytes")
    return key
