"""Inference's settings, read from `TAILOR_<FIELD>`."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr

from tailor.settings import ServiceSettings

# Threads for health checks, short calls and calls that are refused.
SPARE_THREADS = 16


def count_cores() -> int:
    """The cores that this process may use, at most 8."""
    return min(len(os.sched_getaffinity(0)), 8)


class Settings(ServiceSettings):
    """Settings of inference, in addition to those of every service."""

    base: str = Field("smollm2-135m-instruct", pattern=r"^[a-z0-9][a-z0-9._-]{0,127}$")
    engine: Literal["auto", "vllm", "transformers"] = "auto"
    replica: str = Field("inference-0", pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._-]{0,252}$")
    # HOST:PORT at which replicas of other bases reach this one's gRPC; empty if they do not.
    advertised_address: str = ""
    digest_key: SecretStr = Field(min_length=16)
    # Tokens of prompt and answer together.
    max_model_len: int = Field(2048, ge=64)
    # Adapters in memory at once, and the largest rank among them.
    max_loras: int = Field(4, ge=1, le=64)
    max_lora_rank: Annotated[Literal[8, 16, 32, 64, 128, 256], BeforeValidator(int)] = 32
    # Answers generated at once, and calls that may wait for that.
    max_concurrent: int = Field(32, ge=1)
    max_queued: int = Field(64, ge=0)
    # Drafts (about 500 bytes each) that may wait on disk for the broker; calls are refused beyond that.
    max_waiting_drafts: int = Field(100_000, ge=1)
    # Memory for attention keys and values (vLLM on CPU), and threads for computation.
    kv_cache_gib: int = Field(1, ge=1)
    compute_threads: int = Field(default_factory=count_cores, ge=1)
    # A file by which training on the same machine sees that a call waits, and pauses.
    compute_lock: Path | None = None
    # The OpenAI-style HTTP API; port 0 disables it.
    http_host: str = "127.0.0.1"
    http_port: int = Field(0, ge=0, le=65535)

    @property
    def call_threads(self) -> int:
        """Threads that serve calls."""
        return self.max_concurrent + self.max_queued + SPARE_THREADS

    @property
    def digest_key_bytes(self) -> bytes:
        return self.digest_key.get_secret_value().encode()

    @property
    def model_cache(self) -> Path:
        """Folder of the base and the adapters on this machine."""
        return self.data_dir / "models"

    @property
    def draft_journal(self) -> Path:
        """File of the drafts that wait for the broker."""
        return self.data_dir / f"drafts-{self.replica}.sqlite"
