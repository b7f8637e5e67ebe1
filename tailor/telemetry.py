"""Metrics for Prometheus, served by every service's status port. Labels never hold personal data."""

from prometheus_client import Counter, Histogram

EVENTS = Counter("tailor_events_total", "Events handled, by topic and outcome.", ["topic", "outcome"])
EVENT_SECONDS = Histogram("tailor_event_seconds", "Seconds to handle an event.", ["topic"])
CALLS = Counter("tailor_rpc_total", "Calls served, by method and code.", ["method", "code"])
CALL_SECONDS = Histogram("tailor_rpc_seconds", "Seconds to serve a call.", ["method"])
