"""The policy and detectors under which documents pass the barrier now, as anonymization publishes them."""

import threading
from collections.abc import Callable

from tailor.api.events.v1 import policies_pb2
from tailor.events.envelope import Event, decode

POLICY_APPLIED = "policy.applied.v1"


class CurrentBarrier:
    """Call it for the digest; empty until anonymization has published one.

    Thread-safe for one thread that applies and any number that ask. `adopt` is called with the first digest: what was accepted before it
    passes under it, because anonymization publishes it before it handles a document.
    """

    def __init__(self, digest: str = "", adopt: Callable[[str], None] = lambda digest: None) -> None:
        self._newest = (0, digest)
        self._adopt = adopt
        self._changed = threading.Condition()

    def __call__(self) -> str:
        return self._newest[1]

    def apply(self, event: Event) -> None:
        """Take over a newer generation; ignore an older one."""
        message = decode(event, policies_pb2.PolicyApplied)
        if not self._newest[1]:
            self._adopt(message.barrier_digest)
        with self._changed:
            if message.generation >= self._newest[0]:
                self._newest = (message.generation, message.barrier_digest)
            self._changed.notify_all()

    def wait_for(self, digest: str, seconds: float) -> bool:
        """Block until documents pass under this digest; False if they do not after this time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._newest[1] == digest, seconds)
