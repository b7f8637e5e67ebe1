"""Settings of inference from the environment."""

import pytest
from pydantic import ValidationError

from services.inference.settings import Settings

KEY = "TAILOR_DIGEST_KEY"
RANK = "TAILOR_MAX_LORA_RANK"


def test_the_largest_rank_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "k" * 16)
    monkeypatch.setenv(RANK, "16")
    assert Settings().max_lora_rank == 16
    monkeypatch.setenv(RANK, "12")
    with pytest.raises(ValidationError):
        Settings()
