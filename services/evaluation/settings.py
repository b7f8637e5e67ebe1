"""Evaluation's settings, read from `TAILOR_<FIELD>`."""

from pydantic import Field

from tailor.settings import ServiceSettings


class Settings(ServiceSettings):
    """Read from `TAILOR_<FIELD>`."""

    max_rows: int = Field(24, ge=1, le=1000, description="Max held-out rows of one evaluation.")
    max_tokens: int = Field(128, ge=1, description="Max tokens of an answer.")
    repetition_penalty: float = Field(
        1.05,
        ge=1,
        le=2,
        description="Keeps greedy answers of small models from repeating themselves. A value of 1.15 was too strong.",
    )
    concurrency: int = Field(32, ge=1, le=64, description="Answers requested in parallel.")
    give_up_seconds: float = Field(
        3600, gt=0, description="How long one evaluation waits for a dependency that does not answer."
    )
    max_starts: int = Field(10, ge=1, description="How often an evaluation is started before it fails.")
