"""The gate: what an evaluation must show before its adapter may serve."""

from services.registry.domain import Evaluation, Gate, Threshold

METRICS = ("rouge1", "rouge2", "rougeL", "bleu", "house_terms_f1", "perplexity")
PARITY = "parity"
LOWER_IS_BETTER = {"perplexity"}
# Tolerance for binary fractions: a score that equals a threshold passes.
ROUNDING = 1e-9
# Nats per token that a candidate may differ from the trainer, if the gate sets no limit.
MAX_PARITY = 0.1


def list_refusals(gate: Gate, evaluation: Evaluation) -> tuple[str, ...]:
    """A sentence for every condition that the evaluation does not meet; empty if it passes. NaN never passes."""
    refusals = []
    if evaluation.rows < gate.min_rows:
        refusals.append(f"evaluated on {evaluation.rows} rows; the gate requires {gate.min_rows}")
    refusals.extend(_check_parity(gate, evaluation))
    for threshold in gate.thresholds:
        refusals.extend(_check_threshold(threshold, evaluation))
    return tuple(refusals)


def _check_parity(gate: Gate, evaluation: Evaluation) -> list[str]:
    """The served weights must behave like the trained ones."""
    limit = gate.max_parity or MAX_PARITY
    parity = evaluation.candidate.get(PARITY)
    if parity is None:
        return [f"{PARITY} was not measured: the trainer stored no log-probabilities to compare with"]
    if not parity <= limit + ROUNDING:
        return [
            f"{PARITY} is {parity:.4f} nats per token from the trainer's log-probabilities; the gate allows {limit:.4f}"
        ]
    return []


def _check_threshold(threshold: Threshold, evaluation: Evaluation) -> list[str]:
    metric = threshold.metric
    if metric not in evaluation.candidate or metric not in evaluation.base:
        return [f"{metric} was not measured"]
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    candidate = evaluation.candidate[metric]
    refusals = []
    gain = sign * (candidate - evaluation.base[metric])
    if not gain >= threshold.min_gain_over_base - ROUNDING:
        refusals.append(
            f"{metric} gains {gain:.4f} over the base; the gate requires {threshold.min_gain_over_base:.4f}"
        )
    if evaluation.incumbent is not None and metric in evaluation.incumbent:
        loss = sign * (evaluation.incumbent[metric] - candidate)
        if not loss <= threshold.max_loss_to_incumbent + ROUNDING:
            refusals.append(
                f"{metric} is {loss:.4f} worse than the incumbent; the gate allows {threshold.max_loss_to_incumbent:.4f}"
            )
    return refusals
