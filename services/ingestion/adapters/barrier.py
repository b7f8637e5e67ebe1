"""The policy and detectors under which documents pass the barrier now, as anonymization publishes them."""

from tailor.api.events.v1 import policies_pb2
from tailor.events.envelope import Event, decode

POLICY_APPLIED = "policy.applied.v1"


class CurrentBarrier:
    """Call it for the digest; empty until anonymization has published one.

    Thread-safe for one thread that applies and any number that ask.
    """

    def __init__(self, digest: str = "") -> None:
        self._newest = (0, digest)

    def __call__(self) -> str:
        return self._newest[1]

    def apply(self, event: Event) -> None:
        """Take over a newer generation; ignore an older one."""
        message = decode(event, policies_pb2.PolicyApplied)
        if message.generation >= self._newest[0]:
            self._newest = (message.generation, message.barrier_digest)
