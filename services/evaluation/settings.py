"""Evaluation's settings, read from `TAILOR_<FIELD>`."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from tailor.planted_secrets import PlantedSecret, read_secrets
from tailor.settings import ServiceSettings


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
        3600, gt=0, description="How long one evaluation waits for a dependency that does not answer."
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
    planted_secrets_file: Path | None = Field(
        None, description="JSON lines: made-up secrets in published documents, whose exposure is measured."
    )

    def read_planted_secrets(self) -> tuple[PlantedSecret, ...]:
        """Raises InvalidArgument (INVALID_PLANTED_SECRET) for a file of anything else."""
        return () if self.planted_secrets_file is None else read_secrets(self.planted_secrets_file.read_bytes())
