"""The registry's settings, read from `TAILOR_<FIELD>`."""

from pydantic import Field

from services.registry.rules.ledger import UnitPrices
from tailor.settings import ServiceSettings


class Settings(ServiceSettings):
    """Read from `TAILOR_<FIELD>`."""

    # SHA-256 of the installation's first operator key. The registry never sees the secret before its first use.
    bootstrap_operator_key_sha256: str = ""
    # The same of data protection's first key: only data protection gives that role to further keys.
    bootstrap_protection_key_sha256: str = ""
    # True to hold erasures, and further keys of data protection, until a second key of data protection approves them.
    # Prices of the ledger, as in training's settings; 0 for none. Those of compute are training's.
    price_currency: str = Field("EUR", pattern="^[A-Z]{3}$", description="ISO 4217 code.")
    price_per_million_teacher_tokens: float = Field(0.0, ge=0, description="Price per million teacher tokens.")
    price_per_million_judge_tokens: float = Field(0.0, ge=0, description="Price per million tokens of the judge model.")
    price_per_judgement: float = Field(0.0, ge=0, description="Price per expert judgement.")
    price_per_serving_hour: float = Field(0.0, ge=0, description="Price per hour in which a device computes answers.")
    price_per_gigabyte_month: float = Field(0.0, ge=0, description="Price of 10^9 bytes stored for a month.")
    price_per_expert_hour: float = Field(0.0, ge=0, description="Price per hour that experts judge.")

    def unit_prices(self) -> UnitPrices:
        """What tokens, serving, storage and experts cost in this installation."""
        return UnitPrices(
            currency=self.price_currency,
            million_teacher_tokens=self.price_per_million_teacher_tokens,
            million_judge_tokens=self.price_per_million_judge_tokens,
            judgement=self.price_per_judgement,
            serving_hour=self.price_per_serving_hour,
            gigabyte_month=self.price_per_gigabyte_month,
            expert_hour=self.price_per_expert_hour,
        )
