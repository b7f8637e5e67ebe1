"""Why a worker has no pods, in plain words: from its Job's events, and from the conditions of its Kueue Workload.

Objects are dicts as the API returns them.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from services.training.domain import Failure
from tailor.errors import Reason

# What Kubernetes writes around the cause: the client that folds similar events, the Job controller, and admission.
FRAME = re.compile(r'^(?:\(combined from similar events\): )?(?:Error creating: )?(?:\S+ "[^"]*" is forbidden: )?')
# The wording of Kubernetes (plugin/pkg/admission/resourcequota and priority).
QUOTA = re.compile(
    r"exceeded quota: (?P<name>[^,\s]+), requested: (?P<requested>\S+), used: (?P<used>\S+), limited: (?P<limit>\S+)"
)
PRIORITY_CLASS = re.compile(r"no PriorityClass with name (?P<name>\S+) was found", re.IGNORECASE)

# The reason of the Job controller's events about pods that it could not create.
NO_PODS = "FailedCreate"

Object = Mapping[str, Any]


def explain_quota(message: str) -> Failure | None:
    """What exceeds which ResourceQuota, from a message of the API; None if the message is about something else."""
    match = QUOTA.search(message)
    if match is None:
        return None
    used, limits = _amounts(match["used"]), _amounts(match["limit"])
    amounts = [
        f"{amount} {name} requested, {used.get(name, '?')} of {limits.get(name, '?')} in use"
        for name, amount in _amounts(match["requested"]).items()
    ]
    return Failure(Reason.WAITS_FOR_QUOTA, f"Over the namespace's quota {match['name']!r}: {'; '.join(amounts)}.")


def explain_missing_pods(job: Object, events: Iterable[Object]) -> Failure:
    """Why Kubernetes has not created the Job's pods, by the newest event about it."""
    newest = newest_event(job, [event for event in events if event.get("reason") == NO_PODS])
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


def newest_event(item: Object, events: Sequence[Object]) -> Object | None:
    """The newest of the events about an object."""
    # Events outlive their object: those of an earlier one of the same name are not about this one.
    about = [event for event in events if event["involvedObject"].get("uid") == item["metadata"].get("uid")]
    return max(about, key=_last_seen, default=None)


def explain_admission(queue: str, workload: Object | None) -> Failure:
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


def _amounts(text: str) -> dict[str, str]:
    """`NAME=AMOUNT,...` by name."""
    pairs = [part.partition("=") for part in text.split(",")]
    return {name: amount for name, _, amount in pairs}


def _last_seen(event: Object) -> str:
    """When an event was last seen (RFC 3339): `lastTimestamp` in the older API, a series or `eventTime` in the newer one."""
    series = event.get("series") or {}
    seen = event.get("lastTimestamp") or series.get("lastObservedTime") or event.get("eventTime")
    return str(seen or event["metadata"].get("creationTimestamp", ""))
