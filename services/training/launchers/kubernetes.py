"""Workers as Kubernetes Jobs. They do not depend on this service's process; a restarted service finds them by name."""

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from services.training.domain import RETRIABLE_EXIT, Failure, Job
from services.training.launchers.kubernetes_api import ResourceView, call, explain_quota
from services.training.launchers.kubernetes_job import (
    DISRUPTED,
    GRACE_SECONDS,
    JOB_LABEL,
    LABEL,
    QUEUE_LABEL,
    WORKER,
    job_name,
    render_job,
)
from services.training.ports import Launcher
from services.training.settings import Settings
from tailor.errors import Reason

CONFLICT, MISSING = 409, 404
CHECK_SECONDS = 1.0
# Events about Jobs whose pods could not be created, and about pods whose containers cannot.
WARNINGS = "type=Warning"
# Kueue 0.15 or newer serves this version of Workloads, and labels each with its Job's uid.
WORKLOADS = {"group": "kueue.x-k8s.io", "version": "v1beta2", "plural": "workloads"}
JOB_UID_LABEL = "kueue.x-k8s.io/job-uid"
# The pod's grace period, plus the time to delete it and to receive that event.
ENDS_WITHIN = timedelta(seconds=GRACE_SECONDS + 30)

UNKNOWN_EXIT = 1
# How long creating a container may fail before the run does: an image registry may be down, or a Secret may arrive late.
PATIENCE = timedelta(minutes=5)
# Reasons for which Kubernetes retries a container forever.
NO_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
NO_CONTAINER = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
# Of events about a pod that has a node.
NO_START = {"FailedMount", "FailedMapVolume", "FailedAttachVolume", "FailedCreatePodSandBox"}
# The wording of Kubernetes (pkg/controller/job/pod_failure_policy.go).
RULE = re.compile(r"(?:failed with exit code (?P<code>\d+) )?matching \w+ rule at index (?P<rule>\d+)")

# What Kubernetes writes around the cause: the client that folds similar events, the Job controller, and admission.
FRAME = re.compile(r'^(?:\(combined from similar events\): )?(?:Error creating: )?(?:\S+ "[^"]*" is forbidden: )?')
PRIORITY_CLASS = re.compile(r"no PriorityClass with name (?P<name>\S+) was found", re.IGNORECASE)

# The reason of the Job controller's events about pods that it could not create.
NO_PODS = "FailedCreate"

Object = Mapping[str, Any]


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
        return None if job is None else find_exit_code(job, pods)

    def waits(self, run_id: str, epoch: int) -> Failure | None:
        """Why the worker is not placed yet, as reported by Kueue, the Job controller, the scheduler or the node."""
        job, pods = self._find(run_id, epoch)
        return None if job is None else explain_waiting(job, pods, self._events.known(), self._find_workload(job))

    def refusal(self, run_id: str, epoch: int) -> Failure | None:
        """Why every worker would fail: no image, no Secret, or the deadline is over."""
        job, pods = self._find(run_id, epoch)
        return None if job is None else explain_refusal(job, pods, self._now())

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


def find_exit_code(job: Object, pods: Sequence[Object]) -> int | None:
    """The worker's exit code; None while its Job has not ended."""
    if _condition(job, "Complete"):
        return 0
    failed = _condition(job, "Failed")
    if not failed:
        return None
    # If one of several pods is evicted, the others fail because of it.
    if any(_condition(pod, "DisruptionTarget") for pod in pods):
        return RETRIABLE_EXIT
    matched = RULE.search(failed.get("message", ""))
    if matched:
        return RETRIABLE_EXIT if int(matched["rule"]) == DISRUPTED else int(matched["code"] or UNKNOWN_EXIT)
    codes = [status["state"]["terminated"]["exitCode"] for status in _containers(pods, "terminated")]
    return next((int(code) for code in codes if code), UNKNOWN_EXIT)


def explain_waiting(
    job: Object, pods: Sequence[Object], events: Sequence[Object], workload: Object | None
) -> Failure | None:
    """What the worker waits for, as the component that keeps it waiting reports it; None if it runs or has ended.

    `events` are warnings about Jobs and pods, `workload` is the Job's in Kueue.
    """
    if _condition(job, "Complete") or _condition(job, "Failed"):
        return None
    if job["spec"].get("suspend"):
        queue = job["metadata"].get("labels", {}).get(QUEUE_LABEL)
        return (
            _explain_admission(queue, workload)
            if queue
            else Failure(Reason.WAITS_FOR_ADMISSION, "Its Job is suspended.")
        )
    if len(pods) < job["spec"].get("parallelism", 1):
        return _explain_missing_pods(job, events)
    pending = [pod for pod in pods if pod.get("status", {}).get("phase", "Pending") == "Pending"]
    return _explain_pending(pending[0], events) if pending else None


def explain_refusal(job: Object, pods: Sequence[Object], now: datetime) -> Failure | None:
    """Why every worker of the run would fail; None if another may succeed."""
    failed = _condition(job, "Failed")
    if failed and _is_out_of_time(job, failed):
        return Failure(Reason.OUT_OF_TIME, "Its worker exceeded TAILOR_KUBERNETES_DEADLINE_SECONDS.")
    for pod in pods:
        started = pod.get("status", {}).get("startTime")
        if started and now - datetime.fromisoformat(started) > PATIENCE:
            for status in _containers([pod], "waiting"):
                reason = status["state"]["waiting"].get("reason", "")
                if reason in NO_IMAGE:
                    return Failure(Reason.IMAGE_NOT_PULLED, _waiting_message(status))
                if reason in NO_CONTAINER:
                    return Failure(Reason.CONTAINER_NOT_MADE, _waiting_message(status))
    return None


def _is_out_of_time(job: Object, failed: Object) -> bool:
    if failed.get("reason") == "DeadlineExceeded":
        return True
    # The Job controller gives the pods' end as the reason if another change of the Job kept it from noting first why it ended them.
    seconds, started = job["spec"].get("activeDeadlineSeconds"), job["status"].get("startTime")
    if seconds is None or started is None:
        return False
    # A Job is Failed only when all of its pods have ended; that it will be is known before.
    decided = _condition(job, "FailureTarget") or failed
    lasted = datetime.fromisoformat(decided["lastTransitionTime"]) - datetime.fromisoformat(started)
    return lasted >= timedelta(seconds=seconds)


def _explain_pending(pod: Object, events: Sequence[Object]) -> Failure:
    for condition in pod.get("status", {}).get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return Failure(Reason.WAITS_FOR_NODE, condition.get("message") or "No node accepts its pod.")
    for status in _containers([pod], "waiting"):
        if status["state"]["waiting"].get("reason") in NO_IMAGE:
            return Failure(Reason.WAITS_FOR_IMAGE, _waiting_message(status))
        if status["state"]["waiting"].get("reason") in NO_CONTAINER:
            return Failure(Reason.WAITS_FOR_CONTAINER, _waiting_message(status))
    # A volume that cannot be mounted, such as a Secret that does not exist, occurs in no status.
    warning = _newest_event(pod, [event for event in events if event.get("reason") in NO_START])
    if warning is not None:
        return Failure(Reason.WAITS_FOR_CONTAINER, f"{warning['reason']}: {warning.get('message', '')}")
    return Failure(Reason.WAITS_FOR_START, "Its pod has a node and is being started.")


def _waiting_message(status: Object) -> str:
    waiting = status["state"]["waiting"]
    return f"{waiting['reason']}: {waiting.get('message', '')}".removesuffix(": ")


def _containers(pods: Sequence[Object], state: str) -> Iterator[Object]:
    for pod in pods:
        for status in pod.get("status", {}).get("containerStatuses", []):
            if state in status.get("state", {}):
                yield status


def _condition(item: Object, kind: str) -> Object | None:
    conditions = item.get("status", {}).get("conditions", [])
    return next(
        (condition for condition in conditions if condition["type"] == kind and condition["status"] == "True"), None
    )


def _explain_missing_pods(job: Object, events: Iterable[Object]) -> Failure:
    """Why Kubernetes has not created the Job's pods, by the newest event about it."""
    newest = _newest_event(job, [event for event in events if event.get("reason") == NO_PODS])
    if newest is None:
        name = job["metadata"]["name"]
        return Failure(Reason.WAITS_FOR_POD, f"Kubernetes has not created its pods. See `kubectl describe job {name}`.")
    cause = FRAME.sub("", newest.get("message", ""))
    missing = PRIORITY_CLASS.search(cause)
    if missing:
        return Failure(
            Reason.WAITS_FOR_POD,
            f"The PriorityClass {missing['name']!r} does not exist. Create it, or change TAILOR_KUBERNETES_PRIORITY_CLASS.",
        )
    return explain_quota(cause) or Failure(Reason.WAITS_FOR_POD, f"Kubernetes refuses to create its pods: {cause}")


def _newest_event(item: Object, events: Sequence[Object]) -> Object | None:
    """The newest of the events about an object."""
    # Events outlive their object: those of an earlier one of the same name are not about this one.
    about = [event for event in events if event["involvedObject"].get("uid") == item["metadata"].get("uid")]
    return max(about, key=_last_seen, default=None)


def _explain_admission(queue: str, workload: Object | None) -> Failure:
    """Why Kueue has not admitted the Workload of a Job, or has evicted it. Without a Workload, only that it has not."""
    conditions = {item["type"]: item for item in (workload or {}).get("status", {}).get("conditions", [])}
    evicted, reserved = conditions.get("Evicted", {}), conditions.get("QuotaReserved", {})
    message = f"Kueue has not admitted its Job to the queue {queue!r}"
    if evicted.get("status") == "True":
        message = f"Kueue evicted its Job from the queue {queue!r} ({evicted['message']})"
    causes = [reserved["message"]] if reserved.get("status") == "False" else _open_checks(workload)
    return Failure(Reason.WAITS_FOR_ADMISSION, f"{': '.join([message, *filter(None, causes)]).rstrip('.')}.")


def _open_checks(workload: Object | None) -> list[str]:
    """The admission checks that a Workload with reserved quota still waits for."""
    checks = (workload or {}).get("status", {}).get("admissionChecks", [])
    waiting = [
        f"{check['name']!r} is {check['state']} {check.get('message', '')}".strip()
        for check in checks
        if check["state"] != "Ready"
    ]
    return [f"its admission check {', '.join(waiting)}"] if waiting else []


def _last_seen(event: Object) -> str:
    """When an event was last seen (RFC 3339): `lastTimestamp` in the older API, a series or `eventTime` in the newer one."""
    series = event.get("series") or {}
    seen = event.get("lastTimestamp") or series.get("lastObservedTime") or event.get("eventTime")
    return str(seen or event["metadata"].get("creationTimestamp", ""))
