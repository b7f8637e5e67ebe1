"""Synthetic's settings."""

from pydantic import Field, SecretStr

from tailor.settings import ServiceSettings


class Settings(ServiceSettings):
    """Read from `TAILOR_<FIELD>`."""

    max_row_tokens: int = Field(320, ge=32, description="Most estimated tokens of one row's prompt and answer.")
    min_answer_tokens: int = Field(24, ge=1, description="Least estimated tokens of an answer.")
    rows_per_document: int = Field(2, ge=1, description="Most rows made of one document's structure.")
    max_tokens: int = Field(48_000, ge=1, description="Most estimated tokens of a dataset's train split.")
    held_out_percent: int = Field(12, ge=1, le=50, description="Share of near-duplicate clusters that is held out.")
    min_train_rows: int = Field(8, ge=1, description="Least rows to train on.")
    min_held_out_rows: int = Field(1, ge=1, description="Least rows held out.")
    max_pair_tokens: int = Field(1024, ge=32, description="Most estimated tokens of a pair's prompt and longer answer.")
    near_duplicate_threshold: float = Field(0.8, gt=0, le=1, description="Similarity from which two texts are one.")

    teacher_base_url: str = Field("", description="OpenAI-style endpoint of a teacher; empty for none.")
    teacher_api_key: SecretStr = Field(SecretStr(""), description="Its key.")
    teacher_model: str = Field("", description="Its model.")
    teacher_max_passages: int = Field(64, ge=1, description="Most passages that it is asked about in one build.")
    teacher_attempts: int = Field(4, ge=1, description="Attempts at a passage before a build goes on without it.")
