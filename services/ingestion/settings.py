"""Settings of the ingestion service."""

import base64
import binascii

from pydantic import SecretStr, field_validator

from tailor.settings import ServiceSettings

KEY_BYTES = 32


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

    @field_validator("digest_key", "quarantine_key")
    @classmethod
    def _is_key(cls, value: SecretStr) -> SecretStr:
        decode_key(value)
        return value


def decode_key(value: SecretStr) -> bytes:
    """The key's bytes; ValueError where there are not 32."""
    try:
        key = base64.b64decode(value.get_secret_value(), validate=True)
    except binascii.Error:
        raise ValueError("the key is not base64") from None
    if len(key) != KEY_BYTES:
        raise ValueError("the key has not 32 bytes")
    return key
