"""Metrics for Prometheus, served by every service's status port. Labels never hold personal data."""

from collections.abc import Sequence

from prometheus_client import Counter, Histogram

EVENTS = Counter("tailor_events_total", "Events handled, by topic and outcome.", ["topic", "outcome"])
EVENT_SECONDS = Histogram("tailor_event_seconds", "Seconds to handle an event.", ["topic"])
CALLS = Counter("tailor_rpc_total", "Calls served, by method and code.", ["method", "code"])
CALL_SECONDS = Histogram("tailor_rpc_seconds", "Seconds to serve a call.", ["method"])


def counter(name: str, documentation: str, labels: Sequence[str] = ()) -> Counter:
    """A counter of a service's own; call it once, in bootstrap."""
    return Counter(name, documentation, labels)


def histogram(name: str, documentation: str, labels: Sequence[str] = ()) -> Histogram:
    """A histogram of a service's own; call it once, in bootstrap."""
    return Histogram(name, documentation, labels)
