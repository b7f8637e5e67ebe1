"""Slows publishers through gRPC before events expire unread, or more wait in the outbox than can be sent soon."""

from tailor.errors import Reason, ResourceExhausted
from tailor.events.operations import EventParts

# The share of its retention that the oldest unhandled event may have used before new documents have to wait for it.
MAX_RETENTION_USED = 0.75
MAX_WAITING_EVENTS = 20_000
RETRY_SECONDS = 30.0


class Backpressure:
    """Admits documents while events flow."""

    def __init__(self, parts: EventParts) -> None:
        self._parts = parts

    def admit(self) -> None:
        """Raise ResourceExhausted (BACKLOG_TOO_OLD or TOO_MUCH_WAITS), with the time to wait, while a backlog must go first."""
        used = self._parts.watch.retention_used() if self._parts.watch else 0.0
        if used >= MAX_RETENTION_USED:
            raise ResourceExhausted(
                Reason.BACKLOG_TOO_OLD,
                f"Documents wait so long that the oldest have used {used:.0%} of their retention. Retry later, or add replicas.",
                retry_after_seconds=RETRY_SECONDS,
            )
        waiting = self._parts.outbox.waiting if self._parts.outbox else 0
        if waiting >= MAX_WAITING_EVENTS:
            raise ResourceExhausted(
                Reason.TOO_MUCH_WAITS,
                f"{waiting:,} events wait for the Kafka broker. Retry when it works again.",
                retry_after_seconds=RETRY_SECONDS,
            )
