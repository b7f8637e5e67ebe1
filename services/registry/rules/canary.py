"""When a canary is promoted, when it is withdrawn, and when it is too early to decide."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from services.registry.domain import Arm, CanaryPolicy, Outcome
from services.registry.rules.canary_outcomes import OutcomeValue, compare_outcomes, find_outcome_violations

# This many failed calls are not chance: a canary over its error limit is then withdrawn at once.
MIN_ERRORS = 5
# Of the canary, and of the incumbent.
ArmReports = tuple[Sequence[OutcomeValue], Sequence[OutcomeValue]]


@dataclass(frozen=True)
class CanaryVerdict:
    """The outcome of a canary, with a reason for people."""

    outcome: Outcome
    reason: str


def find_policy_violations(policy: CanaryPolicy) -> dict[str, str]:
    """Violations by field; empty for a valid policy."""
    violations: dict[str, str] = {}
    if not 1 <= policy.percent <= 99:
        violations["canary.percent"] = "must be 1 to 99: both arms need callers"
    if policy.min_calls < 1:
        violations["canary.min_calls"] = "must be 1 or more"
    if policy.max_seconds < 1:
        violations["canary.max_seconds"] = "must be 1 or more"
    if not 0 <= policy.max_error_rate_increase <= 1:
        violations["canary.max_error_rate_increase"] = "must be 0 to 1"
    if not 1 <= policy.max_latency_ratio < math.inf:
        violations["canary.max_latency_ratio"] = "must be 1 or more"
    return violations | find_outcome_violations(policy)


def decide_outcome(
    policy: CanaryPolicy,
    canary: Arm,
    incumbent: Arm,
    seconds: float,
    reports: ArmReports = ((), ()),
) -> CanaryVerdict | None:
    """The verdict on the calls, and the reports of the canary and the incumbent, `seconds` after the start; None if it is too early.

    An outcome in the policy can withdraw a canary at any time, and a promotion needs it.
    """
    failing = _find_errors(policy, canary, incumbent)
    if failing and canary.errors >= MIN_ERRORS:
        return CanaryVerdict(Outcome.BACK, failing)
    compared = compare_outcomes(policy, *reports) if policy.outcome else None
    has_calls = min(canary.calls, incumbent.calls) >= policy.min_calls
    reason = (failing or _find_delays(policy, canary, incumbent)) if has_calls else ""
    if reason:
        return CanaryVerdict(Outcome.BACK, reason)
    if compared is not None and compared.outcome is Outcome.BACK:
        return CanaryVerdict(Outcome.BACK, compared.reason)
    if has_calls and (compared is None or compared.outcome is Outcome.FORWARD):
        reasons = [_summarise(canary, incumbent), *([compared.reason] if compared else [])]
        return CanaryVerdict(Outcome.FORWARD, "; ".join(reasons))
    if seconds >= policy.max_seconds:
        lacking = compared.reason if compared is not None and has_calls else _count_calls(policy, canary, incumbent)
        return CanaryVerdict(Outcome.BACK, f"undecided after {policy.max_seconds} s: {lacking}")
    return None


def _count_calls(policy: CanaryPolicy, canary: Arm, incumbent: Arm) -> str:
    return (
        f"{canary.calls} calls by {canary.callers} keys, against {incumbent.calls} by {incumbent.callers} for the incumbent; "
        f"the policy requires {policy.min_calls} in each arm"
    )


def _find_errors(policy: CanaryPolicy, canary: Arm, incumbent: Arm) -> str:
    """The reason if too many calls failed; otherwise empty."""
    increase = canary.error_rate - incumbent.error_rate
    if increase <= policy.max_error_rate_increase:
        return ""
    return f"{_errors(canary, incumbent)}; the policy allows {policy.max_error_rate_increase:.1%} more"


def _find_delays(policy: CanaryPolicy, canary: Arm, incumbent: Arm) -> str:
    """The reason if answers are too slow; otherwise empty."""
    if canary.first_token_seconds is None:
        return "none of its calls was answered"
    delays = [
        f"{name} {ours:.3f} s, against {theirs:.3f} s"
        for name, ours, theirs in _seconds(canary, incumbent)
        if ours > theirs * policy.max_latency_ratio
    ]
    return f"{', '.join(delays)}; the policy allows {policy.max_latency_ratio:g} times as long" if delays else ""


def _seconds(canary: Arm, incumbent: Arm) -> list[tuple[str, float, float]]:
    """Name and median seconds of both arms, for what both have measured."""
    pairs = (
        ("first token after", canary.first_token_seconds, incumbent.first_token_seconds),
        ("each further token", canary.token_seconds, incumbent.token_seconds),
    )
    return [(name, ours, theirs) for name, ours, theirs in pairs if ours is not None and theirs is not None]


def _errors(canary: Arm, incumbent: Arm) -> str:
    return f"{canary.errors} of {canary.calls} calls failed, against {incumbent.errors} of {incumbent.calls}"


def _summarise(canary: Arm, incumbent: Arm) -> str:
    times = [f"{name} {ours:.3f} s, against {theirs:.3f} s" for name, ours, theirs in _seconds(canary, incumbent)]
    return "; ".join([_errors(canary, incumbent), *times])
