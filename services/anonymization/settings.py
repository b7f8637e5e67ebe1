"""Anonymization's settings, read from `TAILOR_<FIELD>`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator

from services.anonymization.review.domain import ResidualBound, ResidualLimit
from tailor.keys import decode_key, decode_keys
from tailor.settings import ServiceSettings

# Those with rules and word lists in recognise/languages/data.
LANGUAGES = ("en", "de", "fr", "es", "it", "nl", "pl", "pt")
LanguageCode = Annotated[str, Field(pattern=r"^[a-z]{2}$")]


class Settings(ServiceSettings):
    """Read from `TAILOR_<FIELD>`. Keys are 32 bytes in base64. The vault's key comes from outside and is never stored."""

    quarantine_key: SecretStr
    vault_key: SecretStr
    # Earlier vault keys, newest first, comma-separated; needed until `rotate` reports that nothing is left.
    vault_previous_keys: SecretStr = SecretStr("")
    policy_file: Path | None = None
    # The folder of the files of names that a policy may read.
    lists_dir: Path | None = None
    # The languages of the documents (ISO 639-1). The first one is that of texts too short to tell.
    languages: Annotated[tuple[LanguageCode, ...], Field(min_length=1, max_length=40)] = LANGUAGES
    # What happens to a document with a passage in another language: `hold` rejects it, `rules` masks the passage by rules only.
    uncovered_languages: Literal["hold", "rules"] = "hold"
    # Which detectors find personal values; otherwise recognise/detectors/default.toml.
    detectors_file: Path | None = None
    # A text whose values are not found within this time is rejected.
    seconds_per_text: Annotated[float, Field(gt=0, le=3_600)] = 300.0
    # Phone numbers without a country code are recognised for these regions (ISO 3166).
    phone_regions: tuple[str, ...] = ("GB", "US", "DE", "FR")

    # The largest share of passages, 0 to 1, in which something may be left; beyond it, nothing trains. Without one, nothing is refused.
    max_residual: float | None = Field(None, ge=0, le=1)
    # What is compared with it: the upper end of the estimate's interval, or the estimate itself.
    max_residual_bound: ResidualBound = ResidualBound.UPPER

    @property
    def residual_limit(self) -> ResidualLimit | None:
        """The limit, or None if nothing is refused."""
        return None if self.max_residual is None else ResidualLimit(self.max_residual, self.max_residual_bound)

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
