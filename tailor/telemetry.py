"""Metrics for Prometheus, served by every service's status port. Labels never hold personal data."""

from prometheus_client import Counter, Gauge, Histogram

EVENTS = Counter("tailor_events_total", "Events handled, by topic and outcome.", ["topic", "outcome"])
EVENT_SECONDS = Histogram("tailor_event_seconds", "Seconds to handle an event.", ["topic"])
CALLS = Counter("tailor_rpc_total", "Calls served, by method and code.", ["method", "code"])
CALL_SECONDS = Histogram("tailor_rpc_seconds", "Seconds to serve a call.", ["method"])
FAULTS = Gauge("tailor_fault", "1 while a part of the process does not work, by part and reason.", ["part", "reason"])
EVENTS_BEHIND = Gauge("tailor_events_behind", "Events that the service's group has not handled, by topic.", ["topic"])
RETENTION_USED = Gauge(
    "tailor_retention_used_ratio", "Age of the oldest unhandled event as a share of the topic's retention.", ["topic"]
)
OUTBOX_WAITING = Gauge("tailor_outbox_waiting", "Events in the outbox that wait to be sent.")
OUTBOX_SET_ASIDE = Gauge("tailor_outbox_set_aside", "Events in the outbox that the broker will never take.")
EVENTS_EXPIRED = Counter("tailor_events_expired_total", "Events that expired before they were handled.", ["topic"])
RUNS_AWAITING_APPROVAL = Gauge(
    "tailor_runs_awaiting_approval", "Runs of training that are forecast above a limit and wait for approval."
)
ANSWERS_RUNNING = Gauge("tailor_answers_running", "Answers that inference generates now.")
ANSWERS_WAITING = Gauge("tailor_answers_waiting", "Calls that wait for a place at inference.")
