"""Metrics for Prometheus, served by every service's status port. Labels never hold personal data."""

from prometheus_client import Counter, Gauge, Histogram

EVENTS = Counter("tailor_events_total", "Events handled, by topic and outcome.", ["topic", "outcome"])
EVENT_SECONDS = Histogram("tailor_event_seconds", "Seconds to handle an event.", ["topic"])
CALLS = Counter("tailor_rpc_total", "Calls served, over gRPC and HTTP, by method and code.", ["method", "code"])
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
ANSWER_TOKENS = Counter(
    "tailor_answer_tokens_total",
    "Tokens of prompts and answers, by specialist, caller (`key`, or a service) and kind (`prompt`, `completion`).",
    ["specialist", "caller", "kind"],
)
FIRST_TOKEN_SECONDS = Histogram(
    "tailor_first_token_seconds",
    "Seconds to an answer's first token, its wait for a place included, by specialist and caller.",
    ["specialist", "caller"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300),
)


def count_call(method: str, code: str, seconds: float) -> None:
    """Count a call over any protocol. `method` is the full name in the contract, `code` a canonical code."""
    CALL_SECONDS.labels(method).observe(seconds)
    CALLS.labels(method, code).inc()
