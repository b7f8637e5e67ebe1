"""Workers as Kubernetes Jobs. They do not depend on this service's process; a restarted service finds them by name."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from services.training.domain import Failure, Job
from services.training.launchers import kubernetes_status as status
from services.training.launchers.kubernetes_api import ResourceView, call
from services.training.launchers.kubernetes_job import (
    GRACE_SECONDS,
    JOB_LABEL,
    LABEL,
    WORKER,
    job_name,
    render_job,
)
from services.training.ports import Launcher
from services.training.settings import Settings

CONFLICT, MISSING = 409, 404
CHECK_SECONDS = 1.0
# Events about Jobs whose pods could not be created, and about pods whose containers cannot.
WARNINGS = "type=Warning"
# Kueue 0.15 or newer serves this version of Workloads, and labels each with its Job's uid.
WORKLOADS = {"group": "kueue.x-k8s.io", "version": "v1beta2", "plural": "workloads"}
JOB_UID_LABEL = "kueue.x-k8s.io/job-uid"
# The pod's grace period, plus the time to delete it and to receive that event.
ENDS_WITHIN = timedelta(seconds=GRACE_SECONDS + 30)


def _now() -> datetime:
    return datetime.now(UTC)


class KubernetesLauncher(Launcher):
    """Creates, watches and deletes Jobs. `batch`, `core` and `custom` are clients of the kubernetes package.

    `watch` must run in a thread. Until it has seen the cluster, and while the API is unreachable, every question about a worker raises
    Unavailable. Events and, with a queue, Kueue's Workloads only explain why a worker waits: without them, it is known that it waits.
    """

    def __init__(
        self, batch: Any, core: Any, custom: Any, settings: Settings, now: Callable[[], datetime] = _now
    ) -> None:
        self._batch = batch
        self._settings = settings
        self._now = now
        place, workers = settings.kubernetes_namespace, f"{LABEL}={WORKER}"
        self._jobs = ResourceView(batch.list_namespaced_job, place, label_selector=workers)
        self._pods = ResourceView(core.list_namespaced_pod, place, label_selector=workers)
        self._events = ResourceView(core.list_namespaced_event, place, field_selector=WARNINGS)
        list_workloads = partial(custom.list_namespaced_custom_object, **WORKLOADS)
        self._workloads = ResourceView(list_workloads, place, label_selector=JOB_UID_LABEL)

    @classmethod
    def from_settings(cls, settings: Settings) -> "KubernetesLauncher":
        """A launcher in the cluster that the service runs in."""
        from kubernetes import client, config

        config.load_incluster_config()
        return cls(client.BatchV1Api(), client.CoreV1Api(), client.CustomObjectsApi(), settings)

    @property
    def ends_within(self) -> timedelta:
        return ENDS_WITHIN

    def watch(self, stop: threading.Event) -> None:
        """Follow Jobs, their pods, and what explains their waiting, until stopped. Blocks."""
        # Daemon threads: a watch ends only when the API ends it, and stopping does not wait for that.
        views = [self._jobs, self._pods, self._events, *([self._workloads] if self._settings.kubernetes_queue else [])]
        threads = [threading.Thread(target=view.run, args=(stop,), daemon=True) for view in views]
        for thread in threads:
            thread.start()
        while not stop.wait(CHECK_SECONDS):
            if not all(thread.is_alive() for thread in threads):
                raise RuntimeError("a watch of the cluster has ended")

    def start(self, job: Job) -> None:
        call(
            self._batch.create_namespaced_job,
            accepted=CONFLICT,
            namespace=self._settings.kubernetes_namespace,
            body=render_job(job, self._settings),
        )

    def exit_code(self, run_id: str, epoch: int) -> int | None:
        job, pods = self._find(run_id, epoch)
        return None if job is None else status.exit_code(job, pods)

    def waits(self, run_id: str, epoch: int) -> Failure | None:
        """Why the worker is not placed yet, as reported by Kueue, the Job controller, the scheduler or the node."""
        job, pods = self._find(run_id, epoch)
        return None if job is None else status.waits(job, pods, self._events.known(), self._find_workload(job))

    def refusal(self, run_id: str, epoch: int) -> Failure | None:
        """Why every worker would fail: no image, no Secret, or the deadline is over."""
        job, pods = self._find(run_id, epoch)
        return None if job is None else status.refusal(job, pods, self._now())

    def stop(self, run_id: str, epoch: int) -> None:
        """Delete the Job. Its pods get SIGTERM and two minutes to save. The Job keeps its name until they have ended."""
        call(
            self._batch.delete_namespaced_job,
            accepted=MISSING,
            name=job_name(run_id, epoch),
            namespace=self._settings.kubernetes_namespace,
            propagation_policy="Foreground",
        )

    def stop_all(self) -> None:
        """Does nothing: Jobs continue without this service."""

    def _find_workload(self, job: dict[str, Any]) -> dict[str, Any] | None:
        uid = job["metadata"].get("uid", "")
        matching = (item for item in self._workloads.known() if item["metadata"]["labels"].get(JOB_UID_LABEL) == uid)
        return next(matching, None)

    def _find(self, run_id: str, epoch: int) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        name = job_name(run_id, epoch)
        pods = self._pods.objects().values()
        matching = [pod for pod in pods if pod["metadata"].get("labels", {}).get(JOB_LABEL) == name]
        return self._jobs.objects().get(name), sorted(matching, key=lambda pod: pod["metadata"]["name"])
