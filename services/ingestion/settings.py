"""Ingestion's settings, read from `TAILOR_<FIELD>`."""

import json
import re
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator

from tailor.keys import decode_key
from tailor.settings import ServiceSettings
from tailor.storage.buckets import BUCKETS
from tailor.storage.policies import MAX_KEPT_DAYS

HTTPS_PORT = 443
HOST = re.compile(
    r"(?P<host>(?=.{1,253}(?::|$))[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+)(:(?P<port>[0-9]{1,5}))?"
)
# A last label that resolvers read as part of an IP address: digits only, or 0x and hexadecimal digits.
NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class Settings(ServiceSettings):
    """Read from `TAILOR_<FIELD>`. Keys are 32 bytes in base64. Limits apply to one document."""

    digest_key: SecretStr
    quarantine_key: SecretStr
    max_file_bytes: int = 20 * 1024 * 1024
    max_chars: int = 6_000_000
    # Days for which a document's newest text stays encrypted in quarantine, so that a new policy can be applied to it. 0: not at all.
    keep_text_days: int = Field(0, ge=0, le=MAX_KEPT_DAYS)
    # How many documents a replay sends through the barrier per minute, so that new documents do not wait behind it.
    replay_documents_per_minute: int = Field(600, ge=1, le=100_000)
    parse_workers: int = 2
    parse_seconds: float = 60.0
    parse_cpu_seconds: int = 45
    parse_memory_bytes: int = 1536 * 1024 * 1024

    # Buckets and hosts (HOST or HOST:PORT) that documents may be fetched from, separated by commas. None by default.
    fetch_buckets: str = ""
    fetch_hosts: str = ""
    # Time limit in seconds for one attempt to fetch a file, redirects included. There are four attempts.
    fetch_seconds: float = Field(30.0, gt=0)
    # Certificate authorities (PEM) in addition to the system's.
    fetch_ca_file: Path | None = None
    # The object store of those buckets and a key that may read them. Empty fields default to ingestion's own store and key.
    fetch_s3_endpoint: str = ""
    fetch_s3_secure: bool = True
    fetch_s3_region: str = ""
    fetch_s3_access_key: str = ""
    fetch_s3_secret_key: SecretStr = SecretStr("")

    @field_validator("digest_key", "quarantine_key")
    @classmethod
    def _check_key(cls, value: SecretStr) -> SecretStr:
        decode_key(value)
        return value

    @field_validator("fetch_hosts", "fetch_buckets")
    @classmethod
    def _check_list(cls, value: str, info: ValidationInfo) -> str:
        (decode_hosts if info.field_name == "fetch_hosts" else decode_buckets)(value)
        return value

    @model_validator(mode="after")
    def _refuse_own_buckets(self) -> Self:
        refused = {self.s3_bucket_prefix + bucket for bucket in BUCKETS} & set(_parts(self.fetch_buckets))
        if refused:
            raise ValueError(f"documents cannot be fetched from Tailor's own buckets ({', '.join(sorted(refused))})")
        return self

    def fetch_store(self) -> ServiceSettings:
        """The settings of the object store that holds documents published by reference."""
        changes: dict[str, object] = {"s3_bucket_prefix": ""}
        if self.fetch_s3_endpoint:
            changes |= {"s3_endpoint": self.fetch_s3_endpoint, "s3_secure": self.fetch_s3_secure}
        if self.fetch_s3_region:
            changes["s3_region"] = self.fetch_s3_region
        if self.fetch_s3_access_key:
            changes |= {"s3_access_key": self.fetch_s3_access_key, "s3_secret_key": self.fetch_s3_secret_key}
        return self.model_copy(update=changes)


def decode_hosts(value: str) -> list[tuple[str, int]]:
    """Host names with their ports. Raises ValueError for anything else, such as an IP address."""
    return [_host(part) for part in _parts(value)]


def decode_buckets(value: str) -> list[str]:
    """Names of buckets. Raises ValueError for an invalid name and for Tailor's own buckets."""
    buckets = _parts(value)
    if not all(BUCKET.fullmatch(bucket) for bucket in buckets):
        raise ValueError("a bucket name must have 3 to 63 characters, each of them a-z, 0-9, '.' or '-'")
    if refused := set(buckets) & set(BUCKETS):
        raise ValueError(f"documents cannot be fetched from Tailor's own buckets ({', '.join(sorted(refused))})")
    return buckets


def _host(part: str) -> tuple[str, int]:
    match = HOST.fullmatch(part)
    if match is None or NUMERIC.fullmatch(match["host"].rpartition(".")[2]):
        raise ValueError("a host must be a full lower-case name such as files.example.com, optionally with :PORT")
    return match["host"], int(match["port"] or HTTPS_PORT)


def _parts(value: str) -> list[str]:
    """The parts of a list: separated by commas, or in JSON as a settings file gives it."""
    if value.startswith("["):
        return [str(part).strip() for part in json.loads(value)]
    return [part.strip() for part in value.split(",") if part.strip()]
