"""Whether experts' marks of a canary's drafts meet the conditions of the gate: certainly, certainly not, or not known yet.

Of each prompt, the first draft that a caller got while the canary ran counts: so drafts are independent, and each was written by the
adapter that its caller was given. Its mark is the mean of its experts' last marks. A floor is compared with Student's interval of the
mean, a loss with Welch's interval of the difference (`canary_outcomes`), at the looks that are described there. Any of several conditions
can withdraw a canary, so for that each must be more certain (Bonferroni). A promotion needs all of them, for which no correction is needed.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from services.registry.domain import SATISFACTION, Decision, JudgingPolicy, Outcome, PanelGuard
from services.registry.rules.canary_outcomes import ERROR, SCALES, OutcomeComparison, measure_gain, student
from services.registry.rules.gate import Finding

# Marks, from 1 to 5, have the scale of satisfaction.
SCALE = SCALES[SATISFACTION]
LOWEST, HIGHEST = SCALE
MIN_DRAFTS, MAX_DRAFTS = 10, 10_000
REMEDY = (
    "`tailor specialist guidelines NAME` shows what the experts' comments ask for; then change the recipe or the rows"
)


@dataclass(frozen=True)
class PanelMark:
    """An expert's mark of a draft of the canary, or of the incumbent."""

    criterion: str
    prompt_digest: str
    is_canary: bool
    expert_id: str
    mark: int
    moment: datetime


@dataclass(frozen=True)
class MarkedDrafts:
    """The marked drafts of one arm, their experts, and the mean mark; None without drafts."""

    drafts: int
    experts: int
    mean: float | None


@dataclass(frozen=True)
class CriterionMarks:
    """All marks by a criterion so far, and the state of the conditions on them, for people."""

    criterion: str
    canary: MarkedDrafts
    incumbent: MarkedDrafts
    conditions: tuple[str, ...]


@dataclass(frozen=True)
class _Condition:
    """A condition of a guard. `arms` are those that it compares, the canary first; the estimate must be at least `limit`."""

    guard: PanelGuard
    arms: tuple[bool, ...]
    limit: float


def find_panel_violations(
    guards: Sequence[PanelGuard], judging: JudgingPolicy, *, is_measurable: bool
) -> dict[str, str]:
    """Violations by field; empty for valid guards. Marks can be measured if drafts are stored and canaries run."""
    names = [criterion.name for criterion in judging.effective_criteria]
    violations = {}
    if guards and not is_measurable:
        violations["panel"] = (
            "needs a `canary` table and `keep_drafts = true`: experts mark stored drafts that callers got from a canary"
        )
    for index, guard in enumerate(guards):
        field = f"panel[{index}]"
        if guard.criterion not in names:
            violations[f"{field}.criterion"] = f"must be one of the judging criteria: {', '.join(names)}"
        if guard.criterion in [earlier.criterion for earlier in guards[:index]]:
            violations[f"{field}.criterion"] = "is listed twice"
        violations |= {f"{field}{name}": problem for name, problem in _check_limits(guard)}
    return violations


def _check_limits(guard: PanelGuard) -> Iterator[tuple[str, str]]:
    if guard.min_mean is None and guard.max_loss is None:
        yield "", "must set min_mean or max_loss"
    if guard.min_mean is not None and not LOWEST < guard.min_mean < HIGHEST:
        yield ".min_mean", "must be above 1 and below 5: no number of drafts shows that a mean is 5"
    if guard.max_loss is not None and not 0 < guard.max_loss <= HIGHEST - LOWEST:
        yield ".max_loss", "must be above 0 and at most 4: no number of drafts shows that two adapters are equal"
    if not MIN_DRAFTS <= guard.min_drafts <= MAX_DRAFTS:
        yield ".min_drafts", f"must be {MIN_DRAFTS} to {MAX_DRAFTS:,}: fewer drafts have no interval that holds"


def compare_marks(guards: Sequence[PanelGuard], marks: Sequence[PanelMark]) -> list[OutcomeComparison]:
    """Every condition of the guards: FORWARD if it is certainly met, BACK if it is certainly broken. Later marks change no earlier look."""
    conditions = [condition for guard in guards for condition in _list_conditions(guard)]
    return [_compare(condition, marks, len(conditions)) for condition in conditions]


def check_panel(guards: Sequence[PanelGuard], marks: Sequence[PanelMark]) -> list[Finding]:
    """The gate's findings: what was not measured, or is not certain yet, is undecided."""
    findings = map(_to_finding, compare_marks(guards, marks))
    # Both conditions of a criterion without marks are the same sentence.
    return [*dict.fromkeys(findings)]


def _to_finding(item: OutcomeComparison) -> Finding:
    if item.outcome is Outcome.BACK:
        return Decision.REFUSED, f"{item.reason}. {REMEDY}"
    return Decision.PASSED if item.outcome is Outcome.FORWARD else Decision.UNDECIDED, item.reason


def explain_undecided(findings: Sequence[Finding], decision: Decision, explanation: str) -> list[Finding]:
    """The findings, in which those that are undecided lead to this decision, with an explanation."""
    return [
        (decision, f"{sentence}; {explanation}") if before is Decision.UNDECIDED else (before, sentence)
        for before, sentence in findings
    ]


def summarize_marks(guards: Sequence[PanelGuard], marks: Sequence[PanelMark]) -> list[CriterionMarks]:
    """The marks by each criterion of the guards."""
    count = sum(len([*_list_conditions(guard)]) for guard in guards)
    return [_summarize_criterion(guard, marks, count) for guard in guards]


def _summarize_criterion(guard: PanelGuard, marks: Sequence[PanelMark], conditions: int) -> CriterionMarks:
    marks = [mark for mark in marks if mark.criterion == guard.criterion]
    return CriterionMarks(
        criterion=guard.criterion,
        canary=_summarize([mark for mark in marks if mark.is_canary]),
        incumbent=_summarize([mark for mark in marks if not mark.is_canary]),
        conditions=tuple(_compare(condition, marks, conditions).reason for condition in _list_conditions(guard)),
    )


def _list_conditions(guard: PanelGuard) -> Iterator[_Condition]:
    if guard.min_mean is not None:
        yield _Condition(guard, (True,), guard.min_mean)
    if guard.max_loss is not None:
        yield _Condition(guard, (True, False), -guard.max_loss)


def _compare(condition: _Condition, marks: Sequence[PanelMark], conditions: int) -> OutcomeComparison:
    name = condition.guard.criterion
    arms = [[mark for mark in marks if (mark.criterion, mark.is_canary) == (name, arm)] for arm in condition.arms]
    reason = _count(condition, arms)
    for seen, error in _list_looks(condition.guard.min_drafts, arms):
        samples = [[*_average(marks_of_arm).values()] for marks_of_arm in seen]
        value, half = _estimate(samples, error)
        reason = _describe(condition, seen, (value, value - half, value + half))
        if value - half >= condition.limit:
            return OutcomeComparison(Outcome.FORWARD, reason)
        if value + _estimate(samples, error / conditions)[1] < condition.limit:
            return OutcomeComparison(Outcome.BACK, reason)
    return OutcomeComparison(None, reason)


def _list_looks(
    count: int, arms: Sequence[Sequence[PanelMark]]
) -> Iterator[tuple[Sequence[Sequence[PanelMark]], float]]:
    """The marks of each arm at every comparison that is due, with its error."""
    firsts = [_list_first_moments(marks) for marks in arms]
    error = ERROR
    while count <= min(map(len, firsts)):
        error /= 2
        moment = max(moments[count - 1] for moments in firsts)
        yield [[mark for mark in marks if mark.moment <= moment] for marks in arms], error
        count *= 2


def _list_first_moments(marks: Sequence[PanelMark]) -> list[datetime]:
    """When each draft was marked first, in order."""
    first: dict[str, datetime] = {}
    for mark in marks:
        first[mark.prompt_digest] = min(mark.moment, first.get(mark.prompt_digest, mark.moment))
    return sorted(first.values())


def _average(marks: Sequence[PanelMark]) -> Mapping[str, float]:
    """The mean of the experts' last marks of each draft, by prompt."""
    last: dict[str, dict[str, int]] = defaultdict(dict)
    for mark in sorted(marks, key=lambda mark: mark.moment):
        last[mark.prompt_digest][mark.expert_id] = mark.mark
    return {prompt: statistics.fmean(by_expert.values()) for prompt, by_expert in last.items()}


def _estimate(samples: Sequence[Sequence[float]], error: float) -> tuple[float, float]:
    """The mean of one arm, or the gain of the first over the second, and half the width of its interval."""
    if len(samples) > 1:
        return measure_gain(SATISFACTION, samples[0], samples[1], error)
    values = samples[0]
    square = statistics.variance([*values, *SCALE]) / len(values)
    return statistics.fmean(values), student(1 - error / 2, len(values) - 1) * math.sqrt(square)


def _summarize(marks: Sequence[PanelMark]) -> MarkedDrafts:
    averages = _average(marks)
    mean = statistics.fmean(averages.values()) if averages else None
    return MarkedDrafts(len(averages), len({mark.expert_id for mark in marks}), mean)


def _count(condition: _Condition, arms: Sequence[Sequence[PanelMark]]) -> str:
    name = condition.guard.criterion
    counts = [_summarize(marks).drafts for marks in arms]
    if not counts[0]:
        return f"the experts' {name} was not measured: no draft of its canary has a mark"
    against = f", against {counts[1]}" if len(counts) > 1 else ""
    return (
        f"the experts' {name} is not decided: {counts[0]} drafts are marked{against}; "
        f"the gate requires {condition.guard.min_drafts}"
    )


def _describe(condition: _Condition, arms: Sequence[Sequence[PanelMark]], estimate: tuple[float, float, float]) -> str:
    name = condition.guard.criterion
    told = [
        f"{arm.mean:.2f} in {arm.drafts} drafts by {arm.experts} {'expert' if arm.experts == 1 else 'experts'}"
        for arm in map(_summarize, arms)
    ]
    if len(arms) == 1:
        _, low, high = estimate
        return f"the experts' {name} is {told[0]} ({low:.2f} to {high:.2f}); the gate requires {condition.limit:g}"
    gain, lowest, highest = (f"{number:+.2f}" for number in estimate)
    return (
        f"the experts' {name} is {told[0]}, against {told[1]}: a gain of {gain} ({lowest} to {highest}); "
        f"the gate allows a loss of {-condition.limit:g}"
    )
