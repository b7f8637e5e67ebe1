"""Training's launcher and its workers on a control plane: the tests see pods as the cluster does, and report for a kubelet."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from kubernetes import client

from services.training.domain import Failure, Job
from services.training.launchers.kubernetes import KubernetesLauncher
from services.training.launchers.kubernetes_job import job_name
from services.training.ports import Launcher
from services.training.settings import Settings
from tailor.errors import Reason, Unavailable
from tests.cluster.control_plane import PLAYED_BY, ControlPlane
from tests.cluster.nodes import NAMESPACE, SECONDS
from tests.unit.training.fakes import change_job
from tests.waiting import wait_until

T = TypeVar("T")

OPTIONS = Settings(
    kubernetes_namespace=NAMESPACE,
    kubernetes_image="registry.example/tailor/training:0.3.0",
    kubernetes_worker_secret="tailor-training-worker",
    kubernetes_node_labels="tailor/pool=gpu",
)
PLAYED = change_job(OPTIONS, annotations=f"{PLAYED_BY}=test")
CONTAINER = {"name": "worker", "image": OPTIONS.kubernetes_image, "imageID": "", "ready": False, "restartCount": 0}


@dataclass
class Place:
    """A cluster with the prod overlay, and launchers that are stopped at the end."""

    plane: ControlPlane
    stop: threading.Event = field(default_factory=threading.Event)
    ahead: timedelta = timedelta()

    namespace: str = NAMESPACE
    # Where training's ServiceAccount is.
    services: str = NAMESPACE

    def launcher(self, options: Settings = OPTIONS) -> KubernetesLauncher:
        """A launcher with the rights of training's pod, which has read the cluster."""
        api = self.plane.api(self.plane.service_account_token(self.services, "training"))
        clients = client.BatchV1Api(api), client.CoreV1Api(api), client.CustomObjectsApi(api)
        made = KubernetesLauncher(*clients, options, lambda: datetime.now(UTC) + self.ahead)
        threading.Thread(target=made.watch, args=(self.stop,), daemon=True).start()
        wait_until(lambda: known(lambda: made.exit_code("none", 1)) is None, SECONDS, "the launcher")
        return made

    def pods(self, job: Job) -> list[client.V1Pod]:
        label = f"batch.kubernetes.io/job-name={name_of(job)}"
        return list(self.plane.core.list_namespaced_pod(self.namespace, label_selector=label).items)

    def pod(self, job: Job) -> client.V1Pod:
        """The worker's pod, once it has a node."""
        found = wait_until(lambda: [pod for pod in self.pods(job) if pod.spec.node_name], SECONDS, "a node")
        return found[0]

    def report(self, job: Job, status: dict[str, Any]) -> None:
        """Report a pod's status as its kubelet would."""
        pod = self.pod(job)
        self.plane.core.patch_namespaced_pod_status(pod.metadata.name, self.namespace, {"status": status})

    def ends(self, job: Job, code: int) -> None:
        """The worker's container ends with a code."""
        now = datetime.now(UTC).isoformat()
        state = {"terminated": {"exitCode": code, "reason": "Ended", "startedAt": now, "finishedAt": now}}
        phase = "Failed" if code else "Succeeded"
        self.report(job, {"phase": phase, "startTime": now, "containerStatuses": [CONTAINER | {"state": state}]})

    def cannot_start(self, job: Job, reason: str, message: str) -> None:
        """The worker's container waits for a reason."""
        state = {"waiting": {"reason": reason, "message": message}}
        started = datetime.now(UTC).isoformat()
        self.report(
            job, {"phase": "Pending", "startTime": started, "containerStatuses": [CONTAINER | {"state": state}]}
        )


def known(ask: Callable[[], T]) -> T | Unavailable:
    """The launcher's answer, or that it does not know the cluster yet."""
    try:
        return ask()
    except Unavailable as error:
        return error


def name_of(job: Job) -> str:
    return job_name(job.run.run_id, job.run.epoch)


def waits_for(launcher: Launcher, job: Job, reason: Reason, words: str = "") -> str:
    """The message of a reason, as soon as the worker waits for it and the message has the words: causes arrive as events, after the fact."""

    def message() -> str | None:
        found = launcher.waits(job.run.run_id, job.run.epoch)
        if not isinstance(found, Failure) or found.reason != reason:
            return None
        return found.message if words in found.message else None

    return str(wait_until(message, SECONDS, f"waiting for {reason} {words}"))


def runs(place: Place, launcher: Launcher, job: Job, pods: int = 1) -> None:
    """Wait until the worker has a number of running pods, and waits for nothing more."""

    def are_running() -> bool:
        found = [pod for pod in place.pods(job) if pod.status.phase == "Running"]
        return len(found) == pods and known(lambda: launcher.waits(job.run.run_id, job.run.epoch)) is None

    wait_until(are_running, SECONDS, "a running worker")


def ends_with(launcher: Launcher, job: Job, code: int) -> None:
    wait_until(lambda: launcher.exit_code(job.run.run_id, job.run.epoch) == code, SECONDS, f"exit code {code}")
