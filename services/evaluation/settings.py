"""Evaluation's settings."""

from pydantic import Field

from tailor.settings import ServiceSettings


class Settings(ServiceSettings):
    """Read from `TAILOR_<FIELD>`."""

    max_rows: int = Field(24, ge=1, le=1000, description="Most held-out rows that are measured.")
    max_tokens: int = Field(128, ge=1, description="Most tokens of an answer.")
    repetition_penalty: float = Field(
        1.05,
        ge=1,
        le=2,
        description="Keeps greedy answers of small models from going in circles; 1.15 kept them from their own words, too.",
    )
    concurrency: int = Field(32, ge=1, le=64, description="Answers asked for side by side.")
    give_up_seconds: float = Field(3600, gt=0, description="How long one evaluation waits for what does not answer.")
    max_starts: int = Field(10, ge=1, description="How often an evaluation is started before it is given up.")
