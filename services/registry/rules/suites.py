"""The gate's hard limits. A suite is a fixed set of items, so its values are compared with the limits as they are."""

from collections.abc import Iterator

from services.registry.domain import Decision, Evaluation, Gate, MetricIntervals

PARITY = "parity"
# Nats per token that a candidate may differ from the trainer, if the gate sets no limit.
MAX_PARITY = 0.1
FORGETTING, REFUSALS, MEMORISED = "forgetting.loss", "safety.refusals", "memorisation.memorised"
BASE, CANDIDATE = "base", "candidate"
ROUNDING = 1e-9

Refusals = Iterator[tuple[Decision, str]]


def check_suites(gate: Gate, evaluation: Evaluation) -> Refusals:
    """A refusal for every hard limit that is not met, or that was not measured although it is set."""
    if evaluation.rows < gate.min_rows:
        yield (
            Decision.REFUSED,
            f"evaluated on {evaluation.rows} held-out rows; the gate requires {gate.min_rows}. "
            "Publish more documents; a higher `rows.held_out_percent` holds out more of the new ones",
        )
    yield from _check_parity(gate, evaluation)
    names = [name for name in evaluation.suites if name == FORGETTING]
    yield from _check_losses(evaluation, "forgetting", names, gate.max_forgetting)
    names = [name for name in evaluation.suites if name == REFUSALS]
    yield from _check_losses(evaluation, "safety", names, gate.max_refusal_drop)
    yield from check_memorised(gate, evaluation)


def _check_parity(gate: Gate, evaluation: Evaluation) -> Refusals:
    """The served weights must behave like the trained ones."""
    limit, parity = gate.max_parity or MAX_PARITY, _candidate_value(evaluation.suites.get(PARITY))
    if parity is None:
        yield (
            Decision.REFUSED,
            "parity was not measured: the trainer stored no log-probabilities to compare with. Train the adapter again",
        )
    elif not parity <= limit + ROUNDING:
        yield (
            Decision.REFUSED,
            f"parity is {parity:.4f} nats per token from the trainer's log-probabilities; the gate allows {limit:g}. "
            "Inference does not serve what was trained: check its base and precision",
        )


def _check_losses(evaluation: Evaluation, suite: str, names: list[str], limit: float | None) -> Refusals:
    """The largest loss of a suite's measures against the base."""
    if limit is None:
        return
    gains = {name: gain for name in names if (gain := evaluation.suites[name].gains.get(BASE))}
    if not gains:
        yield _not_measured(evaluation, suite)
        return
    worst = min(gains, key=lambda name: gains[name].value)
    gain = gains[worst]
    if not -gain.value <= limit + ROUNDING:
        yield (
            Decision.REFUSED,
            f"{worst} loses {-gain.value:.3f} (95 %: {-gain.high:.3f} to {-gain.low:.3f}, {gain.rows} items) against the base; "
            f"the gate allows {limit:g}. "
            "Train for fewer steps or at a lower rate, or mix in general rows with `rows.replay`",
        )


def check_memorised(gate: Gate, evaluation: Evaluation) -> Refusals:
    """A refusal if more was memorised than the gate allows, or if that was not measured although it should be."""
    memorised = _candidate_value(evaluation.suites.get(MEMORISED))
    limit = gate.max_memorised or 0
    if memorised is None:
        # Without a limit, a suite that the specialist does not run is not a condition.
        if gate.max_memorised is not None or "memorisation" in evaluation.not_measured:
            yield _not_measured(evaluation, "memorisation")
    elif not memorised <= limit:
        yield (
            Decision.REFUSED,
            f"{memorised:g} secrets or true values were memorised; the gate allows {limit}. "
            "Find their documents, and replay the anonymisation policy over them",
        )


def _not_measured(evaluation: Evaluation, suite: str) -> tuple[Decision, str]:
    reason = evaluation.not_measured.get(suite, "")
    return (
        Decision.REFUSED,
        f"the suite {suite} was not measured{f' ({reason})' if reason else ''}. Add it to `evaluation.suites`, and evaluate again",
    )


def _candidate_value(figures: MetricIntervals | None) -> float | None:
    if figures is None or CANDIDATE not in figures.models:
        return None
    return figures.models[CANDIDATE].value
