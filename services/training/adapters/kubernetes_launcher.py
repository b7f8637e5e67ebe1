"""Workers as Kubernetes Jobs on GPU nodes."""

from dataclasses import dataclass
from typing import Any

from services.training.domain import RETRIABLE_EXIT, Failure, Job
from services.training.spec import to_json
from tailor.errors import Unavailable

TTL_SECONDS = 3600
GRACE_SECONDS = 120
CONFLICT, MISSING = 409, 404


@dataclass(frozen=True)
class JobOptions:
    """Where Jobs run and with what. `environment` holds no secret; `secret` names the Secret that does."""

    namespace: str
    image: str
    gpus: int
    secret: str
    queue: str
    environment: dict[str, str]


def job_name(run_id: str, epoch: int) -> str:
    """The Job's name, as Kubernetes allows it."""
    return f"{run_id.replace('_', '-')}-{epoch}"


def render_job(job: Job, options: JobOptions) -> dict[str, Any]:
    """The Job of one worker. Kubernetes never restarts it: the service does, under a new epoch."""
    labels = {"app.kubernetes.io/name": "training-worker", "app.kubernetes.io/part-of": "tailor"}
    queue = {"kueue.x-k8s.io/queue-name": options.queue} if options.queue else {}
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
            "podFailurePolicy": {"rules": _failure_rules()},
            "template": {"metadata": {"labels": labels}, "spec": _pod(job, options)},
        },
    }


def _failure_rules() -> list[dict[str, Any]]:
    # A preempted or drained pod is replaced by Kubernetes; whatever the worker itself ends with is the service's to judge.
    disrupted = {"onPodConditions": [{"type": "DisruptionTarget", "status": "True"}], "action": "Ignore"}
    ended = {
        "onExitCodes": {"containerName": "worker", "operator": "NotIn", "values": [0]},
        "action": "FailJob",
    }
    return [disrupted, ended]


def _pod(job: Job, options: JobOptions) -> dict[str, Any]:
    gpus = {"nvidia.com/gpu": str(options.gpus)} if options.gpus else {}
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}] if gpus else [],
        "containers": [_container(job, options, gpus)],
        "volumes": [
            {"name": "scratch", "emptyDir": {"sizeLimit": "200Gi"}},
            {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}},
            {"name": "identity", "secret": {"secretName": options.secret, "defaultMode": 0o440}},
        ],
    }


def _container(job: Job, options: JobOptions, gpus: dict[str, str]) -> dict[str, Any]:
    environment = {
        **options.environment,
        "TAILOR_RUN_JSON": to_json(job),
        "TAILOR_DATA_DIR": "/scratch",
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
    return {
        "name": "worker",
        "image": options.image,
        "command": ["python", "-m", "services.training.worker"],
        "env": [*({"name": name, "value": value} for name, value in sorted(environment.items())), *secret],
        "resources": {
            "requests": {"cpu": "4", "memory": "16Gi", **gpus},
            "limits": {"cpu": "16", "memory": "64Gi", **gpus},
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


class KubernetesLauncher:
    """Creates, watches and deletes Jobs. `batch` and `core` are the clients of the kubernetes package."""

    def __init__(self, batch: Any, core: Any, options: JobOptions) -> None:
        self._batch = batch
        self._core = core
        self._options = options

    def start(self, job: Job) -> None:
        """Create the Job; one that exists is left."""
        self._call(
            self._batch.create_namespaced_job,
            accepted=CONFLICT,
            namespace=self._options.namespace,
            body=render_job(job, self._options),
        )

    def exit_code(self, run_id: str, epoch: int) -> int | None:
        """How the worker's container ended; None while it runs, waits or is not there."""
        statuses = [status for pod in self._pods(run_id, epoch) for status in pod.status.container_statuses or []]
        ended = [status.state.terminated for status in statuses if status.state and status.state.terminated]
        # A pod that Kubernetes itself ended, to make room, is a run that goes on elsewhere.
        evicted = any(pod.status.reason in {"Evicted", "Preempting"} for pod in self._pods(run_id, epoch))
        if ended:
            return RETRIABLE_EXIT if evicted else int(ended[-1].exit_code)
        return None

    def refusal(self, run_id: str, epoch: int) -> Failure | None:
        """None: a Job that waits may still find its place."""
        del run_id, epoch
        return None

    def waits(self, run_id: str, epoch: int) -> Failure | None:
        """What it waits for while the Job is admitted by nobody, or its pod finds no place."""
        job = self._call(
            self._batch.read_namespaced_job,
            accepted=MISSING,
            name=job_name(run_id, epoch),
            namespace=self._options.namespace,
        )
        if job is None:
            return None
        pods = self._pods(run_id, epoch)
        pending = bool(pods) and all(pod.status.phase == "Pending" for pod in pods)
        return Failure("WAITS_FOR_PLACE", "Its Job has no place yet.") if job.spec.suspend or pending else None

    def stop(self, run_id: str, epoch: int) -> None:
        """Delete the Job; its pod gets SIGTERM and two minutes to save."""
        self._call(
            self._batch.delete_namespaced_job,
            accepted=MISSING,
            name=job_name(run_id, epoch),
            namespace=self._options.namespace,
            propagation_policy="Background",
        )

    def stop_all(self) -> None:
        """Nothing: Jobs do not depend on this service's life, and it finds them again."""

    def _pods(self, run_id: str, epoch: int) -> list[Any]:
        found = self._call(
            self._core.list_namespaced_pod,
            accepted=MISSING,
            namespace=self._options.namespace,
            label_selector=f"batch.kubernetes.io/job-name={job_name(run_id, epoch)}",
        )
        return list(found.items) if found is not None else []

    def _call(self, method: Any, *, accepted: int, **arguments: Any) -> Any:
        """The answer; None where the API answers with the accepted status."""
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            return method(**arguments)
        except ApiException as error:
            if error.status == accepted:
                return None
            raise Unavailable("KUBERNETES_REFUSED", f"The Kubernetes API answered {error.status}.") from None
        except HTTPError as error:
            raise Unavailable(
                "KUBERNETES_UNAVAILABLE", f"The Kubernetes API is away ({type(error).__name__})."
            ) from None
