"""Calls of the Kubernetes API, and a view of its objects that a watch keeps up to date."""

import json
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from tailor.errors import FailedPrecondition, Reason, ResourceExhausted, TailorError, Unavailable
from tailor.logging import get_logger

log = get_logger(__name__)

CALL_SECONDS = 10.0
# A watch ends by itself after so long, and goes on where it was; a connection that died in silence is noticed then.
WATCH_SECONDS = 60
SILENCE_SECONDS = 15.0
RETRY_SECONDS = 1.0
GONE, BUSY = 410, 429
NOT_ALLOWED = {401, 403, 404}
WORDS = 300


def call(method: Callable[..., Any], *, accepted: int = 0, **arguments: Any) -> Any:
    """The answer; None where the API answers with the accepted status.

    ResourceExhausted (KUBERNETES_BUSY) and Unavailable (KUBERNETES_UNAVAILABLE, or KUBERNETES_FORBIDDEN where an operator has to act) for
    what may succeed later, FailedPrecondition (KUBERNETES_REFUSED) for what cannot.
    """
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        return method(**arguments, _request_timeout=CALL_SECONDS)
    except ApiException as error:
        if error.status == accepted:
            return None
        raise as_error(error) from None
    except (HTTPError, OSError) as error:
        raise away(error) from None


def as_error(error: Any) -> TailorError:
    """What an ApiException means to us."""
    words = _words(error.body) or str(error.reason)
    if error.status == BUSY:
        return ResourceExhausted(Reason.KUBERNETES_BUSY, f"The Kubernetes API is busy: {words}")
    if error.status in NOT_ALLOWED:
        return Unavailable(
            Reason.KUBERNETES_FORBIDDEN,
            f"The Kubernetes API does not let training work ({error.status}): {words} Look at the namespace, its quota, and"
            " the Role training-jobs of k8s/components/training-jobs.",
        )
    if 400 <= error.status < 500 and error.status not in (408, 409, GONE):
        return FailedPrecondition(
            Reason.KUBERNETES_REFUSED, f"The Kubernetes API refused the Job ({error.status}): {words}"
        )
    return Unavailable(Reason.KUBERNETES_UNAVAILABLE, f"The Kubernetes API answered {error.status}: {words}")


def away(error: Exception) -> Unavailable:
    """The API cannot be reached."""
    return Unavailable(Reason.KUBERNETES_UNAVAILABLE, f"The Kubernetes API is away ({type(error).__name__}).")


def _words(body: Any) -> str:
    try:
        return str(json.loads(body)["message"])[:WORDS]
    except (TypeError, ValueError, KeyError):
        return ""


class View:
    """The objects of one kind that carry a label, by name: listed once, then followed."""

    def __init__(self, listing: Callable[..., Any], namespace: str, selector: str) -> None:
        self._listing = listing
        self._where = {"namespace": namespace, "label_selector": selector}
        self._objects: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self._lost: tuple[Reason, str] | None = (Reason.KUBERNETES_UNAVAILABLE, "Nothing has been listed yet.")

    def objects(self) -> dict[str, dict[str, Any]]:
        """What there is now; Unavailable where that is not known."""
        with self._lock:
            if self._lost is not None:
                raise Unavailable(*self._lost)
            return dict(self._objects)

    def run(self, stop: threading.Event) -> None:
        """Keep the view up to date until told to stop."""
        version = ""
        while not stop.is_set():
            try:
                version = self._follow(version or self._list(), stop)
            except TailorError as error:
                # Whatever happened meanwhile is found by listing anew.
                version = ""
                self._lose(error)
                stop.wait(RETRY_SECONDS)

    def _lose(self, error: TailorError) -> None:
        log.warning("jobs are not seen", reason=error.reason, message=error.message)
        with self._lock:
            self._lost = (error.reason, error.message)

    def _list(self) -> str:
        response = call(partial(self._listing, **self._where), _preload_content=False)
        found = json.loads(response.data)
        with self._lock:
            self._objects = {item["metadata"]["name"]: item for item in found["items"]}
            self._lost = None
        return str(found["metadata"]["resourceVersion"])

    def _follow(self, version: str, stop: threading.Event) -> str:
        """Take in what changes until the watch ends by itself; where to go on. Empty where that is too old, and all has to be listed."""
        from kubernetes.client.exceptions import ApiException
        from kubernetes.watch import Watch
        from urllib3.exceptions import HTTPError

        events = Watch(return_type="object").stream(
            self._listing,
            **self._where,
            resource_version=version,
            allow_watch_bookmarks=True,
            timeout_seconds=WATCH_SECONDS,
            _request_timeout=(CALL_SECONDS, WATCH_SECONDS + SILENCE_SECONDS),
        )
        try:
            # A line that was cut off comes as None.
            for event in filter(None, events):
                version = self._take(event["type"], event["raw_object"])
                if stop.is_set():
                    break
        except ApiException as error:
            if error.status == GONE:
                return ""
            raise as_error(error) from None
        except (HTTPError, OSError) as error:
            raise away(error) from None
        return version

    def _take(self, kind: str, item: dict[str, Any]) -> str:
        name = item["metadata"].get("name", "")
        with self._lock:
            if kind == "DELETED":
                self._objects.pop(name, None)
            elif kind != "BOOKMARK":
                self._objects[name] = item
        return str(item["metadata"]["resourceVersion"])
