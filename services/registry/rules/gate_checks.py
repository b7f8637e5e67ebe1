"""A gate may name only metrics and models that an evaluation of the specialist measures."""

import math
from collections.abc import Iterator

from services.registry.domain import Gate, Specialist
from services.registry.rules.gate import BEAT
from services.registry.rules.power import LOG_LIKELIHOOD, PAIRED

PROMPT, EXTERNAL = "prompt", "external:"
SHARES = ("max_forgetting", "max_refusal_drop")
# What evaluation measures for a specialist that names no metrics.
BUILT_IN = ("rouge1", "rouge2", "rougeL", "bleu", "terms", "repetition", "fabrication", "perplexity")


def find_gate_violations(specialist: Specialist) -> dict[str, str]:
    """Violations by field; empty for a valid gate."""
    checks = (*_check_metrics(specialist), *_check_limits(specialist.gate), *_check_models(specialist))
    return {f"gate.{field}": problem for field, problem in checks}


def list_metric_names(specialist: Specialist) -> tuple[str, ...]:
    """The metrics of every evaluation: the specialist's or the built-in ones, and those that decide by default."""
    names = tuple(metric.name for metric in specialist.metrics) or BUILT_IN
    return tuple(dict.fromkeys((LOG_LIKELIHOOD, *PAIRED, *names)))


def _check_metrics(specialist: Specialist) -> Iterator[tuple[str, str]]:
    gate, names = specialist.gate, list_metric_names(specialist)
    rule = f"must be one of {', '.join(names)}, or a part of one, such as `repetition.loops`"
    if gate.primary.metric and gate.primary.metric.split(".")[0] not in names:
        yield "primary.metric", rule
    for index, guard in enumerate(gate.guards):
        if guard.metric.split(".")[0] not in names:
            yield f"guards[{index}].metric", rule
        if not 0 <= guard.margin < math.inf:
            yield f"guards[{index}].margin", "must be 0 or more, in the metric's unit"


def _check_limits(gate: Gate) -> Iterator[tuple[str, str]]:
    if gate.min_rows < 0:
        yield "min_rows", "must be 0 or more"
    if not 0 <= gate.max_parity < math.inf:
        yield "max_parity", "must be 0 or more nats per token"
    for name in SHARES:
        limit = getattr(gate, name)
        if limit is not None and not 0 <= limit <= 1:
            yield name, "must be 0 to 1"
    if gate.max_memorised is not None and gate.max_memorised < 0:
        yield "max_memorised", "must be 0 or more"
    for name in ("min_gain", "min_gain_over_incumbent"):
        if not math.isfinite(getattr(gate.primary, name)):
            yield f"primary.{name}", "must be a number, in the metric's unit"


def _check_models(specialist: Specialist) -> Iterator[tuple[str, str]]:
    policy = specialist.evaluation
    measured = {*BEAT, *(EXTERNAL + name for name in policy.external_models)}
    measured |= {PROMPT} if policy.optimize_prompt else set()
    for index, model in enumerate(specialist.gate.beat):
        if model not in measured:
            yield f"beat[{index}]", f"must be one of the models that are measured: {', '.join(sorted(measured))}"
