"""Evaluation's settings, read from `TAILOR_<FIELD>`."""

from pydantic import Field

from tailor.settings import ServiceSettings


class Settings(ServiceSettings):
    """Read from `TAILOR_<FIELD>`."""

    concurrency: int = Field(32, ge=1, le=64, description="Answers requested in parallel.")
    give_up_seconds: float = Field(
        3600, gt=0, description="How long one evaluation waits for a dependency that does not answer."
    )
    max_starts: int = Field(10, ge=1, description="How often an evaluation is started before it fails.")
