"""Evaluation's settings, read from `TAILOR_<FIELD>`."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from services.evaluation.baselines.costs import HourPrice, Price, PricePerToken, Prices
from services.evaluation.baselines.external import ExternalLimits
from services.evaluation.baselines.optimized_prompt import PromptBudget
from services.evaluation.domain import EXTERNAL
from tailor.planted_secrets import PlantedSecret, read_secrets
from tailor.settings import ServiceSettings

ModelName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9](?:[a-zA-Z0-9_-]{0,61}[a-zA-Z0-9])?$")]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]


class ExternalModelSettings(BaseModel):
    """An external model: an OpenAI-style endpoint, and its prices per million tokens."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    base_url: str = Field(pattern=r"^https?://", description="Such as https://HOST/v1.")
    model: str = Field(min_length=1, description="The model's name at the endpoint.")
    price_input: float | None = Field(None, ge=0, description="Price of a million tokens of prompts.")
    price_output: float | None = Field(None, ge=0, description="Price of a million tokens of answers.")
    currency: Currency = "EUR"
    timeout_seconds: float = Field(120, gt=0, description="Time limit of one request.")

    @property
    def price(self) -> PricePerToken | None:
        """None unless both prices are set."""
        if self.price_input is None or self.price_output is None:
            return None
        return PricePerToken(self.price_input, self.price_output, self.currency)


class MetricService(BaseModel):
    """A metric service of the company. Without `tls` texts travel in plain text; `ca_file` replaces gRPC's own roots."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    address: str = Field(min_length=1)
    tls: bool = True
    ca_file: Path | None = None
    token: SecretStr = SecretStr("")
    timeout_seconds: float = Field(60.0, gt=0, le=600)


class Settings(ServiceSettings):
    """Read from `TAILOR_<FIELD>`."""

    concurrency: int = Field(32, ge=1, le=64, description="Answers requested in parallel.")
    give_up_seconds: float = Field(
        3600, gt=0, description="How long one evaluation waits for a dependency that does not answer, or for an event."
    )
    judge_base_url: str = Field(
        "", description="OpenAI-style endpoint of the judge model, such as https://HOST/v1; empty for no judge model."
    )
    judge_api_key: SecretStr = Field(SecretStr(""), description="The judge model's API key.")
    judge_model: str = Field(
        "",
        description="The judge model's name at its endpoint; at Tailor's own, `base`. Never a specialist that is evaluated.",
    )
    judge_timeout_seconds: float = Field(120, gt=0, description="Time limit of one request to the judge model.")
    judge_parallel: int = Field(4, ge=1, le=64, description="Requests to the judge model at a time.")
    metric_services: dict[str, MetricService] = Field(
        default_factory=dict,
        description='Metric services of the company, which metrics of kind `remote` name: `{"NAME": {"address": "HOST:PORT"}}`.',
    )
    max_starts: int = Field(10, ge=1, description="How often an evaluation is started before it fails.")

    external_models: dict[ModelName, ExternalModelSettings] = Field(
        default_factory=dict, description="External models by the name that specialists give them, as JSON."
    )
    external_model_keys: dict[str, SecretStr] = Field(
        default_factory=dict, description="API keys of the external models by name, as JSON."
    )
    external_parallel: int = Field(8, ge=1, le=64, description="Requests at a time to one external model.")
    external_attempts: int = Field(5, ge=1, description="Attempts per request before an external model is left out.")
    external_max_refusals: int = Field(
        5, ge=0, description="Prompts that an external model may refuse before it is left out."
    )
    inference_price_hour: float | None = Field(
        None, ge=0, description="Price of an hour of the machine that inference runs on, for the cost of its answers."
    )
    inference_currency: Currency = Field("EUR", description="Currency of that price (ISO 4217).")
    prompt_rows: int = Field(24, ge=2, le=500, description="Train rows that an optimised prompt is tried on.")
    prompt_max_scores: int = Field(
        150, ge=1, description="How many times a row is scored before the search for a prompt ends."
    )
    reflection_model: str = Field(
        "", description="External model that proposes prompts; empty for the base that the specialist has."
    )

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        named = {*self.external_model_keys, *({self.reflection_model} - {""})}
        unknown = sorted(named - set(self.external_models))
        if unknown:
            raise ValueError(f"external_models has no {', '.join(unknown)}")
        return self

    @property
    def external_limits(self) -> ExternalLimits:
        return ExternalLimits(self.external_attempts, self.external_parallel, self.external_max_refusals)

    @property
    def prompt_budget(self) -> PromptBudget:
        return PromptBudget(self.prompt_rows, self.prompt_max_scores)

    @property
    def prices(self) -> Prices:
        """Of the external models that have both prices, and of the machine of inference if it has one."""
        pairs = {EXTERNAL + name: model.price for name, model in self.external_models.items()}
        external: dict[str, Price] = {name: price for name, price in pairs.items() if price is not None}
        hour = self.inference_price_hour
        return Prices(external, None if hour is None else HourPrice(hour, self.inference_currency))

    planted_secrets_file: Path | None = Field(
        None, description="JSON lines: made-up secrets in published documents, whose exposure is measured."
    )

    def read_planted_secrets(self) -> tuple[PlantedSecret, ...]:
        """Raises InvalidArgument (INVALID_PLANTED_SECRET) for a file of anything else."""
        return () if self.planted_secrets_file is None else read_secrets(self.planted_secrets_file.read_bytes())
