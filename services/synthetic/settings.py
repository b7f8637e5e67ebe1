"""Settings of synthetic."""

from pydantic import Field, SecretStr

from services.synthetic.domain import BuildLimits, SupersedeWaits
from services.synthetic.rows.preference_rows import PairLimits
from services.synthetic.synthesis.questions import AskLimits
from services.synthetic.synthesis.runner import RunLimits
from services.synthetic.synthesis_domain import ModelRole, TokenPrice
from tailor.settings import ServiceSettings


class Settings(ServiceSettings):
    """Read from `TAILOR_<FIELD>`."""

    min_train_rows: int = Field(8, ge=1, description="Min rows in the train split.")
    min_held_out_rows: int = Field(1, ge=1, description="Min rows in the held-out split.")
    near_duplicate_threshold: float = Field(
        0.8, gt=0, le=1, description="Similarity from which two texts are near-duplicates."
    )
    max_over_redaction: float = Field(
        1.0,
        gt=0,
        description="Replacements of strings that are hardly personal, per 1,000 words of a dataset's documents, above which it warns.",
    )

    superseded_quiet_seconds: float = Field(
        15,
        gt=0,
        le=3_600,
        description="Datasets with superseded documents are built again when no further one has arrived for this time.",
    )
    superseded_max_wait_seconds: float = Field(
        1_800,
        gt=0,
        le=86_400,
        description="They are built again at the latest when the oldest has waited for this time.",
    )

    teacher_base_url: str = Field(
        "", description="OpenAI-style endpoint of a teacher, such as https://HOST/v1; empty for no teacher."
    )
    teacher_api_key: SecretStr = Field(SecretStr(""), description="The teacher's API key.")
    teacher_model: str = Field("", description="The teacher's model name.")
    teacher_price_input: float | None = Field(
        None, ge=0, description="EUR per million tokens of the teacher's prompts."
    )
    teacher_price_output: float | None = Field(None, ge=0, description="EUR per million tokens of its answers.")
    teacher_parallel: int = Field(4, ge=1, le=64, description="Requests at a time per synthesis.")
    teacher_timeout_seconds: float = Field(120, gt=0, description="Time limit of one request to teacher or judge.")
    teacher_proxy: str = Field(
        "", description="HTTP proxy to teacher and judge, such as http://HOST:3128; empty for HTTPS_PROXY, or none."
    )
    teacher_attempts: int = Field(6, ge=1, description="Attempts per request before a synthesis pauses.")
    teacher_pause_seconds: float = Field(300, gt=0, description="Seconds after which a paused synthesis tries again.")
    judge_base_url: str = Field("", description="OpenAI-style endpoint of a judge model; empty for no judge.")
    judge_api_key: SecretStr = Field(SecretStr(""), description="The judge's API key.")
    judge_model: str = Field("", description="The judge's model name.")
    judge_price_input: float | None = Field(None, ge=0, description="EUR per million tokens of the judge's prompts.")
    judge_price_output: float | None = Field(None, ge=0, description="EUR per million tokens of its answers.")

    @property
    def build_limits(self) -> BuildLimits:
        return BuildLimits(self.min_train_rows, self.min_held_out_rows)

    @property
    def supersede_waits(self) -> SupersedeWaits:
        return SupersedeWaits(self.superseded_quiet_seconds, self.superseded_max_wait_seconds)

    @property
    def pair_limits(self) -> PairLimits:
        return PairLimits(min_train_rows=self.min_train_rows, min_held_out_rows=self.min_held_out_rows)

    @property
    def run_limits(self) -> RunLimits:
        return RunLimits(
            parallel=self.teacher_parallel,
            retries=AskLimits(self.teacher_attempts),
            pause_seconds=self.teacher_pause_seconds,
        )

    @property
    def prices(self) -> dict[ModelRole, TokenPrice]:
        """Of the models that have both prices."""
        pairs = {
            ModelRole.TEACHER: (self.teacher_price_input, self.teacher_price_output),
            ModelRole.JUDGE: (self.judge_price_input, self.judge_price_output),
        }
        return {
            role: TokenPrice(prompt, answer)
            for role, (prompt, answer) in pairs.items()
            if prompt is not None and answer is not None
        }
