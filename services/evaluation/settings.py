"""Evaluation's settings, read from `TAILOR_<FIELD>`."""

from pathlib import Path

from pydantic import Field

from tailor.planted_secrets import PlantedSecret, read_secrets
from tailor.settings import ServiceSettings


class Settings(ServiceSettings):
    """Read from `TAILOR_<FIELD>`."""

    concurrency: int = Field(32, ge=1, le=64, description="Answers requested in parallel.")
    give_up_seconds: float = Field(
        3600, gt=0, description="How long one evaluation waits for a dependency that does not answer."
    )
    max_starts: int = Field(10, ge=1, description="How often an evaluation is started before it fails.")
    planted_secrets_file: Path | None = Field(
        None, description="JSON lines: made-up secrets in published documents, whose exposure is measured."
    )

    def read_planted_secrets(self) -> tuple[PlantedSecret, ...]:
        """Raises InvalidArgument (INVALID_PLANTED_SECRET) for a file of anything else."""
        return () if self.planted_secrets_file is None else read_secrets(self.planted_secrets_file.read_bytes())
