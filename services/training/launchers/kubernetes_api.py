"""Calls of the Kubernetes API, and a view of its objects that a watch keeps up to date."""

import json
import re
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from services.training.domain import Failure
from tailor.errors import FailedPrecondition, Reason, ResourceExhausted, TailorError, Unavailable
from tailor.logging import get_logger

log = get_logger(__name__)

CALL_SECONDS = 10.0
# A watch ends after this time and continues where it was, so a connection that died silently is noticed.
WATCH_SECONDS = 60
SILENCE_SECONDS = 15.0
RETRY_SECONDS = 1.0
GONE, BUSY = 410, 429
NOT_ALLOWED = {401, 403, 404}
MAX_MESSAGE = 300
# The wording of Kubernetes (plugin/pkg/admission/resourcequota).
QUOTA = re.compile(
    r"exceeded quota: (?P<name>[^,\s]+), requested: (?P<requested>\S+), used: (?P<used>\S+), limited: (?P<limit>\S+)"
)


def call(method: Callable[..., Any], *, accepted: int = 0, **arguments: Any) -> Any:
    """Call the API and return its answer; None if it answers with the accepted status. Blocks for up to 10 seconds.

    Raises ResourceExhausted (KUBERNETES_BUSY) or Unavailable (KUBERNETES_UNAVAILABLE, or KUBERNETES_FORBIDDEN if an operator must act)
    if the call may succeed later, FailedPrecondition (KUBERNETES_REFUSED) if it cannot.
    """
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        return method(**arguments, _request_timeout=CALL_SECONDS)
    except ApiException as error:
        if error.status == accepted:
            return None
        raise to_error(error) from None
    except (HTTPError, OSError) as error:
        raise unreachable(error) from None


def to_error(error: Any) -> TailorError:
    """An ApiException as a TailorError."""
    message = _message(error.body) or str(error.reason)
    over_quota = explain_quota(message)
    if over_quota:
        return ResourceExhausted(Reason.WAITS_FOR_QUOTA, over_quota.message)
    if error.status == BUSY:
        return ResourceExhausted(Reason.KUBERNETES_BUSY, f"The Kubernetes API is busy: {message}")
    if error.status in NOT_ALLOWED:
        return Unavailable(
            Reason.KUBERNETES_FORBIDDEN,
            f"The Kubernetes API denied access ({error.status}): {message} Check the namespace, its quota, and"
            " the Role training-jobs of k8s/components/training-jobs.",
        )
    if 400 <= error.status < 500 and error.status not in (408, 409, GONE):
        return FailedPrecondition(
            Reason.KUBERNETES_REFUSED, f"The Kubernetes API rejected the Job ({error.status}): {message}"
        )
    return Unavailable(Reason.KUBERNETES_UNAVAILABLE, f"The Kubernetes API answered {error.status}: {message}")


def unreachable(error: Exception) -> Unavailable:
    """The error to raise if the API cannot be reached."""
    return Unavailable(Reason.KUBERNETES_UNAVAILABLE, f"The Kubernetes API cannot be reached ({type(error).__name__}).")


def _message(body: Any) -> str:
    try:
        return str(json.loads(body)["message"])[:MAX_MESSAGE]
    except (TypeError, ValueError, KeyError):
        return ""


class ResourceView:
    """The selected objects of one kind, by name: listed once, then followed by a watch. Thread-safe."""

    def __init__(self, list_objects: Callable[..., Any], namespace: str, **selectors: str) -> None:
        """`selectors` are the API's: `label_selector`, `field_selector`."""
        self._list_objects = list_objects
        self._scope = {"namespace": namespace, **selectors}
        self._objects: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self._lost: tuple[Reason, str] | None = (Reason.KUBERNETES_UNAVAILABLE, "The cluster has not been read yet.")

    def objects(self) -> dict[str, dict[str, Any]]:
        """The current objects. Raises Unavailable if they are not known."""
        with self._lock:
            if self._lost is not None:
                raise Unavailable(*self._lost)
            return dict(self._objects)

    def run(self, stop: threading.Event) -> None:
        """Keep the view up to date until stopped. Blocks."""
        version = ""
        while not stop.is_set():
            try:
                version = self._follow(version or self._list(), stop)
            except TailorError as error:
                # Listing again finds everything that happened meanwhile.
                version = ""
                self._lose(error)
                stop.wait(RETRY_SECONDS)

    def known(self) -> list[dict[str, Any]]:
        """The current objects; none if they are not known. For what only makes a message more precise."""
        with self._lock:
            return [] if self._lost is not None else list(self._objects.values())

    def _lose(self, error: TailorError) -> None:
        lost = (error.reason, error.message)
        with self._lock:
            is_new, self._lost = self._lost != lost, lost
        if is_new:
            log.warning("cluster not readable", reason=error.reason, message=error.message)

    def _list(self) -> str:
        response = call(partial(self._list_objects, **self._scope), _preload_content=False)
        listed = json.loads(response.data)
        with self._lock:
            self._objects = {item["metadata"]["name"]: item for item in listed["items"]}
            self._lost = None
        return str(listed["metadata"]["resourceVersion"])

    def _follow(self, version: str, stop: threading.Event) -> str:
        """Apply changes until the watch ends. Returns the version to continue from; empty if it is too old and all must be listed."""
        from kubernetes.client.exceptions import ApiException
        from kubernetes.watch import Watch
        from urllib3.exceptions import HTTPError

        events = Watch(return_type="object").stream(
            self._list_objects,
            **self._scope,
            resource_version=version,
            allow_watch_bookmarks=True,
            timeout_seconds=WATCH_SECONDS,
            _request_timeout=(CALL_SECONDS, WATCH_SECONDS + SILENCE_SECONDS),
        )
        try:
            # A truncated line arrives as None.
            for event in filter(None, events):
                version = self._apply(event["type"], event["raw_object"])
                if stop.is_set():
                    break
        except ApiException as error:
            if error.status == GONE:
                return ""
            raise to_error(error) from None
        except (HTTPError, OSError) as error:
            raise unreachable(error) from None
        return version

    def _apply(self, kind: str, item: dict[str, Any]) -> str:
        name = item["metadata"].get("name", "")
        with self._lock:
            if kind == "DELETED":
                self._objects.pop(name, None)
            elif kind != "BOOKMARK":
                self._objects[name] = item
        return str(item["metadata"]["resourceVersion"])


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


def _amounts(text: str) -> dict[str, str]:
    """`NAME=AMOUNT,...` by name."""
    pairs = [part.partition("=") for part in text.split(",")]
    return {name: amount for name, _, amount in pairs}
