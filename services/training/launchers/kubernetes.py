"""Workers as Kubernetes Jobs on GPU nodes. They do not depend on this service's life: a restarted one finds them by their names."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from services.training.domain import Failure, Job
from services.training.launchers import kubernetes_status as status
from services.training.launchers.kubernetes_api import View, call
from services.training.launchers.kubernetes_job import (
    GRACE_SECONDS,
    JOB_LABEL,
    LABEL,
    WORKER,
    JobOptions,
    job_name,
    render_job,
)

CONFLICT, MISSING = 409, 404
LOOK_SECONDS = 1.0
# The pod's grace, and what deleting it and hearing of that take.
ENDS_WITHIN = timedelta(seconds=GRACE_SECONDS + 30)


def _now() -> datetime:
    return datetime.now(UTC)


class KubernetesLauncher:
    """Creates, watches and deletes Jobs. `batch` and `core` are the clients of the kubernetes package. `watch` has to run in a thread;
    until it has seen the cluster, and while the API is away, nothing is said about any worker (Unavailable)."""

    def __init__(self, batch: Any, core: Any, options: JobOptions, now: Callable[[], datetime] = _now) -> None:
        self._batch = batch
        self._options = options
        self._now = now
        selector = f"{LABEL}={WORKER}"
        self._jobs = View(batch.list_namespaced_job, options.namespace, selector)
        self._pods = View(core.list_namespaced_pod, options.namespace, selector)

    @property
    def ends_within(self) -> timedelta:
        """The pod's grace and half a minute."""
        return ENDS_WITHIN

    def watch(self, stop: threading.Event) -> None:
        """Follow Jobs and their pods until told to stop."""
        # A watch ends only when the API ends it: this does not wait for that.
        threads = [threading.Thread(target=view.run, args=(stop,), daemon=True) for view in (self._jobs, self._pods)]
        for thread in threads:
            thread.start()
        while not stop.wait(LOOK_SECONDS):
            if not all(thread.is_alive() for thread in threads):
                raise RuntimeError("a watch of the cluster has ended")

    def start(self, job: Job) -> None:
        """Create the Job; one that exists is left."""
        call(
            self._batch.create_namespaced_job,
            accepted=CONFLICT,
            namespace=self._options.namespace,
            body=render_job(job, self._options),
        )

    def exit_code(self, run_id: str, epoch: int) -> int | None:
        """How the worker ended; None while its Job has not ended, or is not there."""
        job, pods = self._seen(run_id, epoch)
        return None if job is None else status.exit_code(job, pods)

    def waits(self, run_id: str, epoch: int) -> Failure | None:
        """What keeps the worker from its place, in the words of Kueue, the scheduler or the node."""
        job, pods = self._seen(run_id, epoch)
        return None if job is None else status.waits(job, pods)

    def refusal(self, run_id: str, epoch: int) -> Failure | None:
        """Why no worker would do better: no image, no Secret, no time left."""
        job, pods = self._seen(run_id, epoch)
        return None if job is None else status.refusal(job, pods, self._now())

    def stop(self, run_id: str, epoch: int) -> None:
        """Delete the Job; its pods get SIGTERM and two minutes to save. It is there, and keeps its name, until they have ended."""
        call(
            self._batch.delete_namespaced_job,
            accepted=MISSING,
            name=job_name(run_id, epoch),
            namespace=self._options.namespace,
            propagation_policy="Foreground",
        )

    def stop_all(self) -> None:
        """Nothing: Jobs go on without this service."""

    def _seen(self, run_id: str, epoch: int) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        name = job_name(run_id, epoch)
        pods = self._pods.objects().values()
        mine = [pod for pod in pods if pod["metadata"].get("labels", {}).get(JOB_LABEL) == name]
        return self._jobs.objects().get(name), sorted(mine, key=lambda pod: pod["metadata"]["name"])
