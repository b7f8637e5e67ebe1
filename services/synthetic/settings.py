"""Settings of synthetic."""

from pydantic import Field, SecretStr

from services.synthetic.domain import BuildLimits
from services.synthetic.rows.preference_rows import PairLimits
from tailor.settings import ServiceSettings


class Settings(ServiceSettings):
    """Read from `TAILOR_<FIELD>`."""

    min_train_rows: int = Field(8, ge=1, description="Min rows in the train split.")
    min_held_out_rows: int = Field(1, ge=1, description="Min rows in the held-out split.")
    near_duplicate_threshold: float = Field(
        0.8, gt=0, le=1, description="Similarity from which two texts are near-duplicates."
    )

    teacher_base_url: str = Field("", description="OpenAI-style endpoint of a teacher; empty for no teacher.")
    teacher_api_key: SecretStr = Field(SecretStr(""), description="The teacher's API key.")
    teacher_model: str = Field("", description="The teacher's model name.")
    teacher_max_passages: int = Field(64, ge=1, description="Max passages per build about which the teacher is asked.")
    teacher_attempts: int = Field(4, ge=1, description="Attempts per passage before a build continues without it.")

    @property
    def build_limits(self) -> BuildLimits:
        return BuildLimits(self.min_train_rows, self.min_held_out_rows)

    @property
    def pair_limits(self) -> PairLimits:
        return PairLimits(min_train_rows=self.min_train_rows, min_held_out_rows=self.min_held_out_rows)
