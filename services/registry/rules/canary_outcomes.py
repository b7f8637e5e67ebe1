"""Whether the outcomes of a canary's drafts are worse than those of the incumbent's, or certainly not.

The gain of the canary is the difference of the two means with Welch's interval (Welch 1947, Biometrika 34:28). Reports arrive one by
one, and a comparison after each of them would find a difference by chance. So reports are compared when both arms have `min_reports`, and
whenever the smaller arm has doubled since. The first look gets half of the 5 % of errors, each later one half of the rest (Bonferroni).
"""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from services.registry.domain import EDIT_RETENTION, MINUTES, SATISFACTION, CanaryPolicy, Outcome

ERROR = 0.05
# The ends of the scale. Reports that are all the same do not prove that there is no spread: one more at each end counts in the variance.
SCALES: Mapping[str, tuple[float, ...]] = {EDIT_RETENTION: (0.0, 1.0), SATISFACTION: (1.0, 5.0), MINUTES: ()}
NAMES = {EDIT_RETENTION: "share of the draft kept", SATISFACTION: "satisfaction", MINUTES: "minutes to the deliverable"}


@dataclass(frozen=True)
class OutcomeValue:
    """One value of the outcome that a canary's policy names."""

    value: float
    moment: datetime


@dataclass(frozen=True)
class OutcomeComparison:
    """What the outcomes say so far; the outcome is None while they are undecided."""

    outcome: Outcome | None
    reason: str


def find_outcome_violations(policy: CanaryPolicy) -> dict[str, str]:
    """Violations by field; empty for a valid policy."""
    if not policy.outcome:
        return {"canary.max_outcome_loss": "must be left out without an outcome"} if policy.max_outcome_loss else {}
    violations = {}
    if policy.outcome not in SCALES:
        violations["canary.outcome"] = f"must be one of {', '.join(SCALES)}, or left out"
    if policy.min_reports < 10:
        violations["canary.min_reports"] = "must be 10 or more: fewer reports have no interval that holds"
    if not 0 < policy.max_outcome_loss <= 4:
        violations["canary.max_outcome_loss"] = (
            "must be above 0 and at most 4: no number of reports shows that two adapters are equal"
        )
    return violations


def summarize_reports(measure: str, values: Sequence[float]) -> float | None:
    """The mean that is compared, for minutes the geometric one; None without values."""
    if not values:
        return None
    mean = statistics.fmean(_transform(measure, values))
    return math.exp(mean) if measure == MINUTES else mean


def compare_outcomes(
    policy: CanaryPolicy, canary: Sequence[OutcomeValue], incumbent: Sequence[OutcomeValue]
) -> OutcomeComparison:
    """FORWARD if the canary is certainly not worse by more than the policy allows, BACK if it certainly is. Expects `policy.outcome`."""
    name = NAMES[policy.outcome]
    reason = f"{len(canary)} reports of {name}, against {len(incumbent)}; the policy requires {policy.min_reports} in each arm"
    for ours, theirs, error in _list_looks(policy.min_reports, canary, incumbent):
        gain, half = _measure_gain(policy.outcome, ours, theirs, error)
        allowed = math.log1p(policy.max_outcome_loss) if policy.outcome == MINUTES else policy.max_outcome_loss
        reason = _describe(policy, ours, theirs, (gain, gain - half, gain + half))
        if gain - half >= -allowed:
            return OutcomeComparison(Outcome.FORWARD, reason)
        if gain + half < -allowed:
            return OutcomeComparison(Outcome.BACK, reason)
    return OutcomeComparison(None, reason)


def _list_looks(
    count: int, canary: Sequence[OutcomeValue], incumbent: Sequence[OutcomeValue]
) -> Iterator[tuple[list[float], list[float], float]]:
    """The values of both arms for every comparison that is due, with its error. Later reports do not change an earlier comparison."""
    arms = [sorted(reports, key=lambda report: report.moment) for reports in (canary, incumbent)]
    error = ERROR
    while count <= min(map(len, arms)):
        error /= 2
        moment = max(reports[count - 1].moment for reports in arms)
        ours, theirs = ([report.value for report in reports if report.moment <= moment] for reports in arms)
        yield ours, theirs, error
        count *= 2


def _measure_gain(measure: str, ours: Sequence[float], theirs: Sequence[float], error: float) -> tuple[float, float]:
    """The canary's gain, positive if it is better, and half the width of Welch's interval."""
    sign = -1 if measure == MINUTES else 1
    means: list[float] = []
    squares: list[float] = []
    freedom = 0.0
    for values in (ours, theirs):
        transformed = _transform(measure, values)
        square = statistics.variance([*transformed, *SCALES[measure]]) / len(values)
        means.append(statistics.fmean(transformed))
        squares.append(square)
        freedom += square**2 / (len(values) - 1)
    total = sum(squares)
    gain = sign * (means[0] - means[1])
    return gain, _student(1 - error / 2, total**2 / freedom) * math.sqrt(total) if total else 0.0


def _transform(measure: str, values: Sequence[float]) -> Sequence[float]:
    """Minutes are compared by their ratio: they have a long tail."""
    return [math.log(value) for value in values] if measure == MINUTES else values


def _student(probability: float, freedom: float) -> float:
    """The quantile of Student's t, within 0.2 % from 9 degrees of freedom on (Abramowitz and Stegun 1964, 26.7.5)."""
    z = statistics.NormalDist().inv_cdf(probability)
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


def _describe(
    policy: CanaryPolicy, ours: Sequence[float], theirs: Sequence[float], gain: tuple[float, float, float]
) -> str:
    measure = policy.outcome
    means = [summarize_reports(measure, values) or 0.0 for values in (ours, theirs)]
    shares = [1 - math.exp(-value) for value in gain] if measure == MINUTES else gain
    style = ".2f" if measure == SATISFACTION else ".1%"
    value, low, high = (f"{number:+{style}}" for number in shares)
    shown = ".1f" if measure == MINUTES else style
    return (
        f"{NAMES[measure]} {means[0]:{shown}} in {len(ours)} reports, against {means[1]:{shown}} in {len(theirs)}: a gain of {value} "
        f"({low} to {high}); the policy allows a loss of {policy.max_outcome_loss:{style}}"
    )
