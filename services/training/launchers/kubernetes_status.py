"""A worker's state, derived from its Job and pods. Jobs and pods are dicts as the API returns them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from services.training.domain import RETRIABLE_EXIT, Failure
from services.training.launchers.kubernetes_job import DISRUPTED, QUEUE_LABEL
from services.training.launchers.kubernetes_reasons import explain_admission, explain_missing_pods, newest_event
from tailor.errors import Reason

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

Object = Mapping[str, Any]


def exit_code(job: Object, pods: Sequence[Object]) -> int | None:
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


def waits(job: Object, pods: Sequence[Object], events: Sequence[Object], workload: Object | None) -> Failure | None:
    """What the worker waits for, as the component that keeps it waiting reports it; None if it runs or has ended.

    `events` are warnings about Jobs and pods, `workload` is the Job's in Kueue.
    """
    if _condition(job, "Complete") or _condition(job, "Failed"):
        return None
    if job["spec"].get("suspend"):
        queue = job["metadata"].get("labels", {}).get(QUEUE_LABEL)
        return (
            explain_admission(queue, workload)
            if queue
            else Failure(Reason.WAITS_FOR_ADMISSION, "Its Job is suspended.")
        )
    if len(pods) < job["spec"].get("parallelism", 1):
        return explain_missing_pods(job, events)
    pending = [pod for pod in pods if pod.get("status", {}).get("phase", "Pending") == "Pending"]
    return _explain_pending(pending[0], events) if pending else None


def refusal(job: Object, pods: Sequence[Object], now: datetime) -> Failure | None:
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
    warning = newest_event(pod, [event for event in events if event.get("reason") in NO_START])
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
