"""The Job manifest of one worker."""

from typing import Any

from services.training.domain import RETRIABLE_EXIT, Job
from services.training.settings import Settings, decode_labels, decode_tolerations
from services.training.spec import to_json
from tailor.errors import FailedPrecondition, Reason

LABEL = "app.kubernetes.io/name"
JOB_LABEL = "batch.kubernetes.io/job-name"
WORKER = "training-worker"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
# The headless Service by which the pods of one Job find their first pod (k8s/components/training-jobs).
SUBDOMAIN = "training-workers"
RENDEZVOUS_PORT = 29500
GPU_TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
TTL_SECONDS = 3600
GRACE_SECONDS = 120
# The time that torchrun gives its processes to save before it kills them; within the grace period.
SAVE_SECONDS = GRACE_SECONDS - 10
RENDEZVOUS_SECONDS = 1800
# The kubelet replaces the token when most of this time is over.
TOKEN_SECONDS = 3600
TOKEN_FOLDER = "/run/tailor/token"  # noqa: S105 - a folder
BASE_CACHE_FOLDER = "/base-cache"
KEYS_IN_SECRET = {"TAILOR_S3_ACCESS_KEY": "s3-access-key", "TAILOR_S3_SECRET_KEY": "s3-secret-key"}
# Linux limits an environment variable to 128 KiB.
MAX_RUN_BYTES = 100_000
# The order of the failure rules: the message of a failed Job names the index of the rule that matched.
DISRUPTED, RETRIABLE, ENDED = range(3)


def _worker_environment(settings: Settings) -> dict[str, str]:
    """The variables that are the same for every run. Further ones cannot change Tailor's own."""
    return {
        **decode_labels(settings.kubernetes_environment),
        "TAILOR_S3_ENDPOINT": settings.s3_endpoint,
        "TAILOR_S3_SECURE": str(settings.s3_secure).lower(),
        "TAILOR_S3_REGION": settings.s3_region,
        "TAILOR_S3_BUCKET_PREFIX": settings.s3_bucket_prefix,
        "TAILOR_S3_STS_ENDPOINT": settings.s3_sts_endpoint,
        "TAILOR_BASE_CACHE_GIB": str(settings.base_cache_gib),
        "TAILOR_TRAINING_ADDRESS": settings.training_address,
        "TAILOR_LOG_LEVEL": settings.log_level,
        "TAILOR_PARALLELISM": settings.parallelism,
        "TAILOR_ROLLOUT_ENGINE": settings.rollout_engine,
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        **_tls_environment(settings),
    }


def _tls_environment(settings: Settings) -> dict[str, str]:
    """Where a worker finds what it needs to call the service by TLS: in its Secret, if the service has the like."""
    files = {
        "TAILOR_TLS_CA_FILE": (settings.tls_ca_file, "ca.pem"),
        "TAILOR_TLS_CERTIFICATE_FILE": (
            settings.tls_certificate_file if settings.tls_client_ca_file else None,
            "tls.crt",
        ),
        "TAILOR_TLS_KEY_FILE": (settings.tls_key_file if settings.tls_client_ca_file else None, "tls.key"),
    }
    return {name: f"/identity/{key}" for name, (path, key) in files.items() if path is not None}


def job_name(run_id: str, epoch: int) -> str:
    """The Job's name; Kubernetes does not allow underscores."""
    return f"{run_id.replace('_', '-')}-{epoch}"


def render_job(job: Job, settings: Settings) -> dict[str, Any]:
    """Render the Job of one worker.

    Kubernetes never restarts it: the service starts another one under a new epoch, so that no two workers share an epoch. Raises
    FailedPrecondition (RUN_TOO_LARGE) if the run does not fit into an environment variable.
    """
    labels = {**decode_labels(settings.kubernetes_labels), LABEL: WORKER, "app.kubernetes.io/part-of": "tailor"}
    annotations = decode_labels(settings.kubernetes_annotations)
    queue = {QUEUE_LABEL: settings.kubernetes_queue} if settings.kubernetes_queue else {}
    seconds, nodes = settings.kubernetes_deadline_seconds, settings.kubernetes_nodes
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(job.run.run_id, job.run.epoch),
            "namespace": settings.kubernetes_namespace,
            "labels": {**labels, **queue},
            "annotations": {"tailor/run-id": job.run.run_id, "tailor/epoch": str(job.run.epoch)},
        },
        "spec": {
            "suspend": bool(settings.kubernetes_queue),
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": TTL_SECONDS,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": _failure_rules()},
            "template": {
                "metadata": {"labels": labels, **({"annotations": annotations} if annotations else {})},
                "spec": _pod(job, settings),
            },
            **({"activeDeadlineSeconds": seconds} if seconds else {}),
            **({"completionMode": "Indexed", "completions": nodes, "parallelism": nodes} if nodes > 1 else {}),
        },
    }


def _failure_rules() -> list[dict[str, Any]]:
    # Each rule ends the Job and its epoch. The matching rule tells a disrupted worker from one that saved and from one that failed.
    disrupted = {"onPodConditions": [{"type": "DisruptionTarget", "status": "True"}], "action": "FailJob"}
    codes = (("In", RETRIABLE_EXIT), ("NotIn", 0))
    return [
        disrupted,
        *(
            {
                "onExitCodes": {"containerName": "worker", "operator": operator, "values": [value]},
                "action": "FailJob",
            }
            for operator, value in codes
        ),
    ]


def _pod(job: Job, settings: Settings) -> dict[str, Any]:
    named = {
        "priorityClassName": settings.kubernetes_priority_class,
        "imagePullSecrets": [{"name": settings.kubernetes_pull_secret}] if settings.kubernetes_pull_secret else [],
        "subdomain": SUBDOMAIN if settings.kubernetes_nodes > 1 else "",
        "affinity": _affinity(job, settings),
        "tolerations": [
            *([GPU_TOLERATION] if settings.kubernetes_gpus else []),
            *decode_tolerations(settings.kubernetes_tolerations),
        ],
        "runtimeClassName": settings.kubernetes_runtime_class,
        "serviceAccountName": settings.kubernetes_service_account,
    }
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            **(
                {"runAsUser": settings.kubernetes_user_id, "fsGroup": settings.kubernetes_user_id}
                if settings.kubernetes_user_id
                else {}
            ),
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(job, settings)],
        "volumes": [
            {"name": "scratch", "emptyDir": {"sizeLimit": settings.kubernetes_scratch}},
            {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": settings.kubernetes_shared_memory}},
            {"name": "identity", "secret": {"secretName": settings.kubernetes_worker_secret, "defaultMode": 0o440}},
            *_token_volume(settings),
            *_base_cache_volume(settings),
        ],
        **{name: value for name, value in named.items() if value},
    }


def _token_volume(settings: Settings) -> list[dict[str, Any]]:
    """The token that the object store's token service accepts, and the API server does not."""
    if not settings.kubernetes_worker_role:
        return []
    token = {"audience": settings.kubernetes_token_audience, "expirationSeconds": TOKEN_SECONDS, "path": "token"}
    return [{"name": "token", "projected": {"defaultMode": 0o440, "sources": [{"serviceAccountToken": token}]}}]


def _base_cache_volume(settings: Settings) -> list[dict[str, Any]]:
    claim = settings.kubernetes_base_cache_claim
    return [{"name": "base-cache", "persistentVolumeClaim": {"claimName": claim}}] if claim else []


def _affinity(job: Job, settings: Settings) -> dict[str, Any]:
    """Only nodes with every label; at most one pod of a Job per node."""
    affinity: dict[str, Any] = {}
    if labels := decode_labels(settings.kubernetes_node_labels):
        required = [{"key": key, "operator": "In", "values": [value]} for key, value in sorted(labels.items())]
        affinity["nodeAffinity"] = {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": required}]}
        }
    if settings.kubernetes_nodes > 1:
        same_job = {"matchLabels": {JOB_LABEL: job_name(job.run.run_id, job.run.epoch)}}
        apart = {"topologyKey": "kubernetes.io/hostname", "labelSelector": same_job}
        affinity["podAntiAffinity"] = {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}
    return affinity


def _container(job: Job, settings: Settings) -> dict[str, Any]:
    gpus = {"nvidia.com/gpu": str(settings.kubernetes_gpus)} if settings.kubernetes_gpus else {}
    return {
        "name": "worker",
        "image": settings.kubernetes_image,
        "command": ["python", "-m", *_program(job, settings)],
        "env": _environment(job, settings),
        "resources": {
            # The scheduler does not look at the size of an emptyDir, only at this.
            "requests": {
                "cpu": settings.kubernetes_cpu,
                "memory": settings.kubernetes_memory,
                "ephemeral-storage": settings.kubernetes_scratch,
                **gpus,
            },
            "limits": {"cpu": settings.kubernetes_cpu_limit, "memory": settings.kubernetes_memory_limit, **gpus},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "scratch", "mountPath": "/scratch"},
            {"name": "shared-memory", "mountPath": "/dev/shm"},  # noqa: S108 - the container's own
            {"name": "identity", "mountPath": "/identity", "readOnly": True},
            *(
                [{"name": "token", "mountPath": TOKEN_FOLDER, "readOnly": True}]
                if settings.kubernetes_worker_role
                else []
            ),
            *([{"name": "base-cache", "mountPath": BASE_CACHE_FOLDER}] if settings.kubernetes_base_cache_claim else []),
        ],
    }


def _program(job: Job, settings: Settings) -> list[str]:
    """The module to run: the worker, or torchrun over several workers, one per GPU."""
    processes = max(1, settings.kubernetes_gpus)
    if processes == settings.kubernetes_nodes == 1:
        return ["services.training.worker"]
    rendezvous = ["--standalone"]
    if settings.kubernetes_nodes > 1:
        first = f"{job_name(job.run.run_id, job.run.epoch)}-0.{SUBDOMAIN}:{RENDEZVOUS_PORT}"
        rendezvous = [
            f"--nnodes={settings.kubernetes_nodes}",
            "--node-rank=$(JOB_COMPLETION_INDEX)",
            "--rdzv-backend=static",
            f"--rdzv-endpoint={first}",
            f"--rdzv-conf=timeout={RENDEZVOUS_SECONDS}",
        ]
    worker = [f"--nproc-per-node={processes}", f"--shutdown-timeout={SAVE_SECONDS}", "-m", "services.training.worker"]
    return ["services.training.launchers.torchrun", *rendezvous, *worker]


def _environment(job: Job, settings: Settings) -> list[dict[str, Any]]:
    # The run is passed in the environment: it contains no secret, a Job is immutable, and a ConfigMap would be one more object to create,
    # to permit and to clean up. Kubernetes expands `$(NAME)` and reads `$$` as a dollar, and patterns of a recipe contain dollars.
    run = to_json(job).replace("$", "$$")
    if len(run.encode()) > MAX_RUN_BYTES:
        raise FailedPrecondition(
            Reason.RUN_TOO_LARGE, "The run's settings exceed 100,000 bytes. Shorten the recipe's lists of terms."
        )
    plain = {
        **_worker_environment(settings),
        "TAILOR_RUN_JSON": run,
        "TAILOR_DATA_DIR": "/scratch",
        "HOME": "/scratch",
        "HF_HOME": "/scratch/hf",
        "TMPDIR": "/scratch",
        "TAILOR_IDENTITY_KEY_FILE": "/identity/identity.pem",
        "TAILOR_TRUST_FILE": "/identity/trust.json",
    }
    if settings.kubernetes_worker_role:
        plain |= {"TAILOR_S3_ROLE": settings.kubernetes_worker_role, "TAILOR_S3_TOKEN_FILE": f"{TOKEN_FOLDER}/token"}
    if settings.kubernetes_base_cache_claim:
        plain |= {"TAILOR_BASE_CACHE_DIR": BASE_CACHE_FOLDER}
    keys = {} if settings.kubernetes_worker_role else KEYS_IN_SECRET
    secret = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": settings.kubernetes_worker_secret, "key": key}}}
        for name, key in keys.items()
    ]
    return [*({"name": name, "value": value} for name, value in sorted(plain.items())), *secret]
