"""A host that does not answer is left alone for a while: the documents behind it do not wait for it again and again."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from services.ingestion.domain import Fetcher, File, Reference, Rejected, RejectionReason
from tailor.errors import Unavailable

# As many as one document tries.
FAILURES = 4
REST_SECONDS = 60.0
# The reason where a host answers that it fails with this very file: others of its files may be fine.
ANSWERED = "HOST_FAILED"


@dataclass
class Health:
    """How often a host did not answer in a row, and until when it is left alone, by a clock that only goes forward."""

    failures: int = 0
    until: float = 0.0


class Breaker:
    """Refuses a host at once for a minute after it did not answer four times in a row; then one try decides about another minute.
    Thread-safe."""

    def __init__(self, fetcher: Fetcher, now: Callable[[], float] = time.monotonic) -> None:
        self._fetcher = fetcher
        self._now = now
        self._hosts: dict[str, Health] = {}
        self._lock = threading.Lock()

    def fetch(self, reference: Reference, max_bytes: int) -> File:
        """The file; Rejected or Unavailable as the domain's Fetcher says, and Rejected where the host is left alone."""
        host = _host(reference.uri)
        self._enter(host)
        try:
            file = self._fetcher.fetch(reference, max_bytes)
        except Unavailable as error:
            if error.reason == ANSWERED:
                self._answered(host)
            else:
                self._failed(host)
            raise
        except Rejected as rejected:
            # What is not allowed was refused without asking the host.
            if rejected.reason is not RejectionReason.NOT_ALLOWED:
                self._answered(host)
            raise
        self._answered(host)
        return file

    def _enter(self, host: str) -> None:
        with self._lock:
            health = self._hosts.get(host)
            if health is None or health.failures < FAILURES:
                return
            if self._now() < health.until:
                raise Rejected(
                    RejectionReason.UNREACHABLE,
                    "The host did not answer lately and is left alone; publish it again in a minute.",
                )
            # Whoever comes now tries; the others wait for what becomes of it.
            health.until = self._now() + REST_SECONDS

    def _failed(self, host: str) -> None:
        with self._lock:
            health = self._hosts.setdefault(host, Health())
            health.failures += 1
            health.until = self._now() + REST_SECONDS

    def _answered(self, host: str) -> None:
        with self._lock:
            self._hosts.pop(host, None)


def _host(uri: str) -> str:
    """Host and port, or the bucket; empty for what is no address, which the fetcher refuses."""
    try:
        parts = urlsplit(uri)
        return f"{parts.scheme}://{(parts.hostname or '').lower()}:{parts.port or ''}"
    except ValueError:
        return ""
