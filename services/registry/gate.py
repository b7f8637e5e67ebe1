"""The gate: what an evaluation must show before its adapter may serve. Rules alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

METRICS = ("rouge1", "rouge2", "rougeL", "bleu", "house_terms_f1", "perplexity")
PARITY = "parity"
LOWER_IS_BETTER = {"perplexity"}
# A score that meets a threshold exactly is not refused for its binary fraction.
ROUNDING = 1e-9
# Nats a token that a candidate may differ from the trainer, where the gate says nothing.
MAX_PARITY = 0.1


@dataclass(frozen=True)
class Threshold:
    """What one metric must reach, in the metric's own unit."""

    metric: str
    min_gain_over_base: float = 0.0
    max_loss_to_incumbent: float = 0.0


@dataclass(frozen=True)
class Gate:
    """All thresholds must be met, on at least `min_rows` rows."""

    thresholds: tuple[Threshold, ...] = ()
    min_rows: int = 0
    max_parity: float = 0.0


@dataclass(frozen=True)
class Evaluation:
    """A candidate's scores beside those of the base and the incumbent."""

    evaluation_id: str
    adapter_digest: str
    specialist: str
    rows: int
    base: Mapping[str, float]
    candidate: Mapping[str, float]
    incumbent: Mapping[str, float] | None
    incumbent_generation: int
    incumbent_digest: str = ""
    payload: bytes = b""


class Decision(Enum):
    """What the gate made of an evaluation."""

    PASSED = "passed"
    REFUSED = "refused"
    STALE = "stale"


def refusals(gate: Gate, evaluation: Evaluation) -> tuple[str, ...]:
    """Every threshold that the evaluation does not meet, for people; empty if the gate is met."""
    found = []
    if evaluation.rows < gate.min_rows:
        found.append(f"measured on {evaluation.rows} rows, the gate wants {gate.min_rows}")
    found.extend(_disparity(gate, evaluation))
    for threshold in gate.thresholds:
        found.extend(_shortfalls(threshold, evaluation))
    return tuple(found)


def _disparity(gate: Gate, evaluation: Evaluation) -> list[str]:
    """What serves must be what was trained."""
    most = gate.max_parity or MAX_PARITY
    found = evaluation.candidate.get(PARITY)
    if found is None:
        return [f"{PARITY} was not measured: the trainer stored nothing to compare with"]
    if not found <= most + ROUNDING:
        return [f"{PARITY} is {found:.4f} nats a token from what the trainer stored, the gate allows {most:.4f}"]
    return []


def _shortfalls(threshold: Threshold, evaluation: Evaluation) -> list[str]:
    metric = threshold.metric
    if metric not in evaluation.candidate or metric not in evaluation.base:
        return [f"{metric} was not measured"]
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    candidate = evaluation.candidate[metric]
    found = []
    gain = sign * (candidate - evaluation.base[metric])
    if not gain >= threshold.min_gain_over_base - ROUNDING:
        found.append(f"{metric} gains {gain:.4f} over the base, the gate wants {threshold.min_gain_over_base:.4f}")
    if evaluation.incumbent is not None and metric in evaluation.incumbent:
        loss = sign * (evaluation.incumbent[metric] - candidate)
        if not loss <= threshold.max_loss_to_incumbent + ROUNDING:
            found.append(
                f"{metric} is {loss:.4f} worse than what serves, the gate allows {threshold.max_loss_to_incumbent:.4f}"
            )
    return found
