"""A circuit breaker for hosts: after repeated failures a host is not called for a while, so that its documents do not delay others."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from services.ingestion.domain import File, FileReference, Rejected, RejectionReason
from services.ingestion.ports import Fetcher
from tailor.errors import Reason, Unavailable

# The number of attempts for one document.
FAILURES = 4
REST_SECONDS = 60.0


@dataclass
class HostHealth:
    """Consecutive failures of a host, and the monotonic time until which it is not called."""

    failures: int = 0
    until: float = 0.0


class CircuitBreaker(Fetcher):
    """Rejects documents of a host for one minute after four failures in a row. Then one attempt decides about another minute.

    A host that answers with an error (HOST_FAILED) counts as healthy, because its other files may be fine. Thread-safe.
    """

    def __init__(self, fetcher: Fetcher, now: Callable[[], float] = time.monotonic) -> None:
        self._fetcher = fetcher
        self._now = now
        self._hosts: dict[str, HostHealth] = {}
        self._lock = threading.Lock()

    def fetch(self, reference: FileReference, max_bytes: int) -> File:
        """Fetch a file. Raises what the wrapped fetcher raises, and Rejected (UNREACHABLE) while the host is not called."""
        host = _host(reference.uri)
        self._enter(host)
        try:
            file = self._fetcher.fetch(reference, max_bytes)
        except Unavailable as error:
            if error.reason == Reason.HOST_FAILED:
                self._record_answer(host)
            else:
                self._record_failure(host)
            raise
        except Rejected as rejected:
            # A forbidden reference is rejected without a call to the host.
            if rejected.reason is not RejectionReason.NOT_ALLOWED:
                self._record_answer(host)
            raise
        self._record_answer(host)
        return file

    def _enter(self, host: str) -> None:
        with self._lock:
            health = self._hosts.get(host)
            if health is None or health.failures < FAILURES:
                return
            if self._now() < health.until:
                raise Rejected(
                    RejectionReason.UNREACHABLE,
                    "The host has not answered recently and is paused. Publish the document again in a minute.",
                )
            # This caller makes the attempt; the others wait for its result.
            health.until = self._now() + REST_SECONDS

    def _record_failure(self, host: str) -> None:
        with self._lock:
            health = self._hosts.setdefault(host, HostHealth())
            health.failures += 1
            health.until = self._now() + REST_SECONDS

    def _record_answer(self, host: str) -> None:
        with self._lock:
            self._hosts.pop(host, None)


def _host(uri: str) -> str:
    """Scheme, host and port, or the bucket; empty for an invalid URI, which the fetcher rejects."""
    try:
        parts = urlsplit(uri)
        return f"{parts.scheme}://{(parts.hostname or '').lower()}:{parts.port or ''}"
    except ValueError:
        return ""
