"""The Job of one worker, as Kubernetes takes it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from services.training.domain import RETRIABLE_EXIT, Job
from services.training.spec import to_json
from tailor.errors import FailedPrecondition, Reason

LABEL = "app.kubernetes.io/name"
JOB_LABEL = "batch.kubernetes.io/job-name"
WORKER = "training-worker"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
# The headless Service through which the pods of one Job find the first of them (k8s/components/training-jobs).
SUBDOMAIN = "training-workers"
RENDEZVOUS_PORT = 29500
TTL_SECONDS = 3600
GRACE_SECONDS = 120
# What torchrun leaves its processes of the grace, before it kills them.
SAVE_SECONDS = GRACE_SECONDS - 10
RENDEZVOUS_SECONDS = 1800
# Linux takes no environment variable over 128 KiB.
MAX_RUN_BYTES = 100_000
# The order of the rules: a Job that failed names the one that it failed by.
DISRUPTED, RETRIABLE, ENDED = range(3)


@dataclass(frozen=True)
class Resources:
    """What one pod asks for and may use at most, as Kubernetes writes quantities. `gpus` is a node's, and its number of processes."""

    gpus: int = 1
    cpu: str = "4"
    cpu_limit: str = "16"
    memory: str = "16Gi"
    memory_limit: str = "64Gi"
    shared_memory: str = "8Gi"
    scratch: str = "200Gi"


@dataclass(frozen=True)
class JobOptions:
    """Where Jobs run and with what. `environment` holds no secret; `secret` names the Secret that does. Empty options are left out."""

    namespace: str
    image: str
    secret: str
    environment: Mapping[str, str]
    resources: Resources = Resources()
    nodes: int = 1
    queue: str = ""
    node_labels: Mapping[str, str] = field(default_factory=dict)
    priority_class: str = ""
    pull_secret: str = ""
    deadline_seconds: int = 0


def job_name(run_id: str, epoch: int) -> str:
    """The Job's name, as Kubernetes allows it."""
    return f"{run_id.replace('_', '-')}-{epoch}"


def render_job(job: Job, options: JobOptions) -> dict[str, Any]:
    """The Job of one worker. Kubernetes never restarts it: the service does, under a new epoch, so that no two workers share one.

    FailedPrecondition (RUN_TOO_LARGE) where the run does not fit into the environment.
    """
    labels = {LABEL: WORKER, "app.kubernetes.io/part-of": "tailor"}
    queue = {QUEUE_LABEL: options.queue} if options.queue else {}
    deadline = {"activeDeadlineSeconds": options.deadline_seconds} if options.deadline_seconds else {}
    indexed = {"completionMode": "Indexed", "completions": options.nodes, "parallelism": options.nodes}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(job.run.run_id, job.run.epoch),
            "namespace": options.namespace,
            "labels": {**labels, **queue},
            "annotations": {"tailor/run-id": job.run.run_id, "tailor/epoch": str(job.run.epoch)},
        },
        "spec": {
            "suspend": bool(options.queue),
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": TTL_SECONDS,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": _failure_rules()},
            "template": {"metadata": {"labels": labels}, "spec": _pod(job, options)},
            **deadline,
            **(indexed if options.nodes > 1 else {}),
        },
    }


def _failure_rules() -> list[dict[str, Any]]:
    # Each ends the Job, and with it the epoch; which one it was says whether the run lost its place, saved, or failed.
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


def _pod(job: Job, options: JobOptions) -> dict[str, Any]:
    resources = options.resources
    named = {
        "priorityClassName": options.priority_class,
        "imagePullSecrets": [{"name": options.pull_secret}] if options.pull_secret else [],
        "subdomain": SUBDOMAIN if options.nodes > 1 else "",
        "affinity": _affinity(job, options),
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
        if resources.gpus
        else [],
    }
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(job, options)],
        "volumes": [
            {"name": "scratch", "emptyDir": {"sizeLimit": resources.scratch}},
            {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": resources.shared_memory}},
            {"name": "identity", "secret": {"secretName": options.secret, "defaultMode": 0o440}},
        ],
        **{name: value for name, value in named.items() if value},
    }


def _affinity(job: Job, options: JobOptions) -> dict[str, Any]:
    """Only on nodes that have every label; the pods of one Job on nodes of their own."""
    affinity: dict[str, Any] = {}
    if options.node_labels:
        wanted = [
            {"key": key, "operator": "In", "values": [value]} for key, value in sorted(options.node_labels.items())
        ]
        affinity["nodeAffinity"] = {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": wanted}]}
        }
    if options.nodes > 1:
        mine = {"matchLabels": {JOB_LABEL: job_name(job.run.run_id, job.run.epoch)}}
        apart = {"topologyKey": "kubernetes.io/hostname", "labelSelector": mine}
        affinity["podAntiAffinity"] = {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}
    return affinity


def _container(job: Job, options: JobOptions) -> dict[str, Any]:
    resources = options.resources
    gpus = {"nvidia.com/gpu": str(resources.gpus)} if resources.gpus else {}
    return {
        "name": "worker",
        "image": options.image,
        "command": ["python", "-m", *_program(job, options)],
        "env": _environment(job, options),
        "resources": {
            "requests": {"cpu": resources.cpu, "memory": resources.memory, **gpus},
            "limits": {"cpu": resources.cpu_limit, "memory": resources.memory_limit, **gpus},
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
        ],
    }


def _program(job: Job, options: JobOptions) -> list[str]:
    """The worker; under torchrun where there are several processes, one for each GPU."""
    processes = max(1, options.resources.gpus)
    if processes == options.nodes == 1:
        return ["services.training.worker"]
    meeting = ["--standalone"]
    if options.nodes > 1:
        first = f"{job_name(job.run.run_id, job.run.epoch)}-0.{SUBDOMAIN}:{RENDEZVOUS_PORT}"
        meeting = [
            f"--nnodes={options.nodes}",
            "--node-rank=$(JOB_COMPLETION_INDEX)",
            "--rdzv-backend=static",
            f"--rdzv-endpoint={first}",
            f"--rdzv-conf=timeout={RENDEZVOUS_SECONDS}",
        ]
    each = [f"--nproc-per-node={processes}", f"--shutdown-timeout={SAVE_SECONDS}", "-m", "services.training.worker"]
    return ["services.training.launchers.torchrun", *meeting, *each]


def _environment(job: Job, options: JobOptions) -> list[dict[str, Any]]:
    # The run goes by the environment: it holds no secret, a Job cannot be changed once it is made, and a ConfigMap would be one more thing
    # to create, to be allowed to, and to clean up.
    # Kubernetes takes `$(NAME)` for another variable and `$$` for a dollar, and a recipe's patterns have dollars.
    run = to_json(job).replace("$", "$$")
    if len(run.encode()) > MAX_RUN_BYTES:
        raise FailedPrecondition(
            Reason.RUN_TOO_LARGE, "The run's settings are over 100,000 bytes; shorten the recipe's lists of terms."
        )
    plain = {
        **options.environment,
        "TAILOR_RUN_JSON": run,
        "TAILOR_DATA_DIR": "/scratch",
        "HOME": "/scratch",
        "HF_HOME": "/scratch/hf",
        "TMPDIR": "/scratch",
        "TAILOR_IDENTITY_KEY_FILE": "/identity/identity.pem",
        "TAILOR_TRUST_FILE": "/identity/trust.json",
    }
    keys = {"TAILOR_S3_ACCESS_KEY": "s3-access-key", "TAILOR_S3_SECRET_KEY": "s3-secret-key"}
    secret = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": options.secret, "key": key}}}
        for name, key in keys.items()
    ]
    return [*({"name": name, "value": value} for name, value in sorted(plain.items())), *secret]
