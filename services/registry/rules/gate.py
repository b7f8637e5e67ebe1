"""The gate. A condition is met or broken only if its whole 95 % interval is on one side; otherwise it is undecided."""

import math
from collections.abc import Iterator

from services.registry.domain import (
    Decision,
    Evaluation,
    Gate,
    GuardMetric,
    Interval,
    MetricIntervals,
    PrimaryMetric,
    Verdict,
)
from services.registry.rules.sample_size import LOG_LIKELIHOOD, PAIR_MARGIN, PAIRED, WIN_RATE, say_what_decides, widen
from services.registry.rules.states import SHORT_DIGEST
from services.registry.rules.suites import check_suites

BASE, FEW_SHOT, INCUMBENT, CANDIDATE = "base", "few_shot", "incumbent", "candidate"
# Models that the primary metric must beat, if the gate names none.
BEAT = (BASE, FEW_SHOT)
# Models that are prompting without tuning, as reports name them.
PROMPTED = {
    FEW_SHOT: "few_shot, the base with house examples in its prompt",
    "prompt": "prompt, the base with an optimised prompt",
}
# Nats per token of the documents' references that a run on preferences may lose, if the gate names neither metric nor guards.
PREFERENCE_MARGIN = 0.1
# Shares that a candidate may lose to an adapter that learned from rankings, if the gate does not guard the pairs: of the pair margin that
# the adapter gained over the base; or of the pairs, if they are too few to show that loss.
TAUGHT_SHARE = 0.5
PAIRS_SHARE = 0.1
# Tolerance for binary fractions: a value that equals a limit counts as equal.
ROUNDING = 1e-9
# A sentence and the decision that it leads to.
Finding = tuple[Decision, str]


def decide(gate: Gate, evaluation: Evaluation) -> Verdict:
    """Refused if any condition is certainly not met or was not measured, else undecided if any is not certainly met.

    The verdict has a sentence for each condition that led to it; for an evaluation that passed, one for each gain of the primary metric.
    """
    findings = [*check_suites(gate, evaluation), *_check_primary(gate, evaluation), *_check_guards(gate, evaluation)]
    for decision in (Decision.REFUSED, Decision.UNDECIDED):
        reasons = tuple(sentence for outcome, sentence in findings if outcome is decision)
        if reasons:
            return Verdict(decision, reasons)
    return Verdict(Decision.PASSED, tuple(sentence for _, sentence in findings))


def find_primary(gate: Gate, evaluation: Evaluation) -> PrimaryMetric:
    """The metric that decides. By default the pair margin if the candidate learned from new rankings, else the log-likelihood.

    Without new rankings nothing can be won on the pairs: what is new occurs in the documents, and the pairs are guarded.
    """
    if gate.primary.metric:
        return gate.primary
    is_paired = PAIR_MARGIN in evaluation.metrics and evaluation.has_new_rankings
    name = PAIR_MARGIN if is_paired else LOG_LIKELIHOOD
    return PrimaryMetric(name, gate.primary.min_gain, gate.primary.min_gain_over_incumbent)


def _list_guards(gate: Gate, evaluation: Evaluation) -> tuple[GuardMetric, ...]:
    """The gate's guards, and by default those of what was learned before: the documents, and what experts taught."""
    guards, primary = gate.guards, find_primary(gate, evaluation).metric
    by_default = not gate.primary.metric and not guards
    if by_default and primary in PAIRED and LOG_LIKELIHOOD in evaluation.metrics:
        guards = (GuardMetric(LOG_LIKELIHOOD, PREFERENCE_MARGIN),)
    named = {gate.primary.metric, *(guard.metric for guard in guards)}
    taught = evaluation.has_other_incumbent and evaluation.incumbent_preferences
    if taught and not named.intersection(PAIRED):
        guards = (*guards, *_guard_pairs(evaluation))
    return guards


def _guard_pairs(evaluation: Evaluation) -> Iterator[GuardMetric]:
    """The guard of what experts taught: the pair margin if the pairs can show the loss of its share, else the win rate."""
    gains = evaluation.metrics[PAIR_MARGIN].gains if PAIR_MARGIN in evaluation.metrics else {}
    if BASE in gains and INCUMBENT in gains:
        over_incumbent = gains[INCUMBENT]
        margin = TAUGHT_SHARE * (gains[BASE].value - over_incumbent.value)
        if margin > over_incumbent.value - over_incumbent.low:
            yield GuardMetric(PAIR_MARGIN, margin)
            return
    if WIN_RATE in evaluation.metrics:
        yield GuardMetric(WIN_RATE, PAIRS_SHARE)


def find_beating_metric(gate: Gate, primary: str) -> str:
    """The metric that must gain over the models of `beat` if an adapter serves.

    By default it is the log-likelihood, even if the pair margin decides: the stages before rankings move the margins over the base for
    reasons that no expert gave, so that gain says nothing about the rankings.
    """
    return LOG_LIKELIHOOD if primary in PAIRED and not gate.primary.metric else primary


def _check_primary(gate: Gate, evaluation: Evaluation) -> Iterator[Finding]:
    primary = find_primary(gate, evaluation)
    beating = primary.metric
    if evaluation.has_other_incumbent:
        beating = find_beating_metric(gate, primary.metric)
    findings = [_check_gain(evaluation, beating, model, primary.min_gain) for model in gate.beat or BEAT]
    # All models lack a metric that was not measured.
    yield from dict.fromkeys(findings)
    if evaluation.has_other_incumbent:
        metrics = tuple(dict.fromkeys((primary.metric, beating)))
        yield from _check_over_incumbent(evaluation, metrics, primary.min_gain_over_incumbent)


def _check_over_incumbent(evaluation: Evaluation, metrics: tuple[str, ...], limit: float) -> Iterator[Finding]:
    """One of the metrics must certainly gain over what serves: rankings and documents may both be new."""
    findings = [_check_gain(evaluation, metric, INCUMBENT, limit, conditions=len(metrics)) for metric in metrics]
    decision = next(
        found
        for found in (Decision.PASSED, Decision.UNDECIDED, Decision.REFUSED)
        if any(outcome is found for outcome, _ in findings)
    )
    prefix = (
        ""
        if decision is Decision.PASSED or len(metrics) == 1
        else f"{' or '.join(metrics)} must gain over what serves: "
    )
    yield from ((outcome, prefix + sentence) for outcome, sentence in findings if outcome is decision)


def _check_gain(evaluation: Evaluation, metric: str, model: str, limit: float, conditions: int = 1) -> Finding:
    """One of this many conditions suffices, so each must be more certain."""
    figures = _find_counting(evaluation, metric)
    if figures is None:
        return _not_measured(evaluation, metric)
    gain = figures.gains.get(model)
    if gain is None:
        reason = f" ({evaluation.not_measured[model]})" if model in evaluation.not_measured else ""
        return (
            Decision.REFUSED,
            f"{metric} was not measured for {model}{reason}. Evaluate it, or remove it from the gate's `beat`",
        )
    told = f"{metric} gains {describe(gain)} over {PROMPTED.get(model, model)}"
    joint = widen(gain, conditions) if _is_finite(gain) else gain
    if joint.low > limit + ROUNDING:
        if _is_finite(gain):
            return Decision.PASSED, told
        return Decision.REFUSED, f"{told}; that is no measurement. Read the rows of {model} in the report"
    if joint.high <= limit + ROUNDING:
        remedy = "Train on more or better rows, or change the recipe"
        if model in PROMPTED:
            remedy = f"An adapter that does not beat prompting is not promoted. {remedy}"
        return Decision.REFUSED, f"{told}; the gate requires more than {limit:g}. {remedy}"
    if gain.low > limit + ROUNDING:
        told += f", which is not certain for the better of {conditions} metrics (from {joint.low:+.3f})"
    decides = say_what_decides(evaluation, metric, joint, limit)
    return (
        Decision.UNDECIDED,
        f"{told}; the gate requires that the whole interval is above {limit:g}: {decides}",
    )


def _check_guards(gate: Gate, evaluation: Evaluation) -> Iterator[Finding]:
    guards = _list_guards(gate, evaluation)
    for guard in guards:
        figures = evaluation.metrics.get(guard.metric)
        model = INCUMBENT if evaluation.has_other_incumbent else BASE
        gain = figures.gains.get(model) if figures else None
        if gain is None:
            yield _not_measured(evaluation, guard.metric)
        elif guard.metric in evaluation.not_measured:
            # A judge model that does not agree with the experts is left out of the gate.
            yield Decision.PASSED, f"the guard {guard.metric} does not count: {evaluation.not_measured[guard.metric]}"
        else:
            yield from _check_guard(evaluation, guard, model, gain, len(guards))


def _check_guard(
    evaluation: Evaluation, guard: GuardMetric, model: str, gain: Interval, guards: int
) -> Iterator[Finding]:
    if gain.low >= -guard.margin - ROUNDING:
        if not _is_finite(gain):
            yield (
                Decision.REFUSED,
                f"the guard {guard.metric} gains {describe(gain)} over {model}; that is no measurement",
            )
        return
    told = f"the guard {guard.metric} gains {describe(gain)} over {model}"
    # Any of the guards can refuse, so each must be more certain. All of them must pass, for which 95 % each is enough.
    joint = widen(gain, guards)
    if joint.high < -guard.margin:
        yield (
            Decision.REFUSED,
            f"{told}; the gate allows a loss of {guard.margin:.3g}. Read the rows that lost in the report, then change recipe or rows",
        )
        return
    if gain.high < -guard.margin:
        told += f", which {guards} guards together do not make certain (up to {joint.high:+.3f})"
    decides = say_what_decides(evaluation, guard.metric, gain if gain.value > -guard.margin else joint, -guard.margin)
    yield Decision.UNDECIDED, f"{told}; the gate allows a loss of {guard.margin:.3g}: {decides}"


def _is_finite(gain: Interval) -> bool:
    """False for a gain over a model whose own figure is not finite: anything would gain without limit."""
    return all(map(math.isfinite, (gain.value, gain.low, gain.high)))


def _find_counting(evaluation: Evaluation, metric: str) -> MetricIntervals | None:
    """The figures of a metric. With a reason in `not_measured` they are shown and do not count, as of a judge that experts contradict."""
    return None if metric in evaluation.not_measured else evaluation.metrics.get(metric)


def _not_measured(evaluation: Evaluation, metric: str) -> Finding:
    reason = evaluation.not_measured.get(metric, "")
    return (
        Decision.REFUSED,
        f"{metric} was not measured{f' ({reason})' if reason else ''}. Evaluate the adapter again with "
        f"`tailor adapter evaluate {evaluation.adapter_digest[:SHORT_DIGEST]}`",
    )


def describe(gain: Interval) -> str:
    """A gain with its interval and number of rows."""
    return f"{gain.value:+.3f} (95 %: {gain.low:+.3f} to {gain.high:+.3f}, {gain.rows} rows)"
