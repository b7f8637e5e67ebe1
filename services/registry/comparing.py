"""Canaries: an adapter that a share of the callers gets, and whether it goes forward or back. Rules alone."""

import math
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

# So many failed calls are no chance: a canary that is over its limit then goes back at once.
PILED_UP = 5


class Outcome(Enum):
    """Where a canary is."""

    RUNNING = "running"
    FORWARD = "forward"
    BACK = "back"
    ENDED = "ended"


@dataclass(frozen=True)
class CanaryRules:
    """Whom a canary serves, and when it goes forward or back."""

    percent: int = 10
    min_calls: int = 50
    max_seconds: int = 86_400
    max_error_rate_increase: float = 0.02
    max_latency_ratio: float = 1.5


@dataclass(frozen=True)
class Call:
    """One call of a specialist. Seconds are None where there was no first token, or no further one."""

    draft_id: str
    specialist: str
    generation: int
    canary: bool
    failed: bool
    key_id: str
    first_token_seconds: float | None
    token_seconds: float | None


@dataclass(frozen=True)
class Arm:
    """The calls of one arm: how many, how many failed, of how many keys, and the medians of their seconds."""

    calls: int = 0
    errors: int = 0
    callers: int = 0
    first_token_seconds: float | None = None
    token_seconds: float | None = None

    @property
    def error_rate(self) -> float:
        """Share of the calls that failed."""
        return self.errors / self.calls if self.calls else 0.0


@dataclass(frozen=True)
class Canary:
    """An adapter that is, or was, tried; it began with the generation. The arms are kept once it has ended."""

    specialist: str
    generation: int
    adapter_digest: str
    rules: CanaryRules
    start_time: datetime
    outcome: Outcome = Outcome.RUNNING
    reason: str = ""
    end_time: datetime | None = None
    tried: Arm = Arm()
    beside: Arm = Arm()


@dataclass(frozen=True)
class Verdict:
    """What becomes of a canary, and why, for people."""

    outcome: Outcome
    reason: str


def violations(rules: CanaryRules) -> dict[str, str]:
    """What is wrong with rules, by field."""
    wrong: dict[str, str] = {}
    if not 1 <= rules.percent <= 99:
        wrong["canary.percent"] = "From 1 to 99: both arms need callers."
    if rules.min_calls < 1:
        wrong["canary.min_calls"] = "1 or more."
    if rules.max_seconds < 1:
        wrong["canary.max_seconds"] = "1 or more."
    if not 0 <= rules.max_error_rate_increase <= 1:
        wrong["canary.max_error_rate_increase"] = "From 0 to 1."
    if not 1 <= rules.max_latency_ratio < math.inf:
        wrong["canary.max_latency_ratio"] = "1 or more."
    return wrong


def verdict(rules: CanaryRules, tried: Arm, beside: Arm, seconds: float) -> Verdict | None:
    """What the calls of both arms so far decide; None where it is too early."""
    failing = _failing(rules, tried, beside)
    if failing and tried.errors >= PILED_UP:
        return Verdict(Outcome.BACK, failing)
    if min(tried.calls, beside.calls) >= rules.min_calls:
        why = failing or _slow(rules, tried, beside)
        return Verdict(Outcome.BACK, why) if why else Verdict(Outcome.FORWARD, _kept(tried, beside))
    if seconds >= rules.max_seconds:
        return Verdict(
            Outcome.BACK,
            f"undecided after {rules.max_seconds} s: {tried.calls} calls of {tried.callers} keys beside {beside.calls} of"
            f" {beside.callers}, the rules want {rules.min_calls} of each arm",
        )
    return None


def _failing(rules: CanaryRules, tried: Arm, beside: Arm) -> str:
    increase = tried.error_rate - beside.error_rate
    if increase <= rules.max_error_rate_increase:
        return ""
    return f"{_errors(tried, beside)}; the rules allow {rules.max_error_rate_increase:.1%} more"


def _slow(rules: CanaryRules, tried: Arm, beside: Arm) -> str:
    """Why its answers come too late; empty where they do not."""
    if tried.first_token_seconds is None:
        return "none of its calls was answered"
    found = [
        f"{what} {ours:.3f} s beside {theirs:.3f} s"
        for what, ours, theirs in _seconds(tried, beside)
        if ours > theirs * rules.max_latency_ratio
    ]
    return f"{', '.join(found)}; the rules allow {rules.max_latency_ratio:g} times as long" if found else ""


def _seconds(tried: Arm, beside: Arm) -> list[tuple[str, float, float]]:
    """What can be compared: what, the canary's and the incumbent's median seconds."""
    pairs = (
        ("first token after", tried.first_token_seconds, beside.first_token_seconds),
        ("each further one", tried.token_seconds, beside.token_seconds),
    )
    return [(what, ours, theirs) for what, ours, theirs in pairs if ours is not None and theirs is not None]


def _errors(tried: Arm, beside: Arm) -> str:
    return f"{tried.errors} of {tried.calls} calls failed beside {beside.errors} of {beside.calls}"


def _kept(tried: Arm, beside: Arm) -> str:
    times = [f"{what} {ours:.3f} s beside {theirs:.3f} s" for what, ours, theirs in _seconds(tried, beside)]
    return "; ".join([_errors(tried, beside), *times])
