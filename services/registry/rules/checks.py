"""Rules that a specialist's definition must fulfil."""

import math
import re
from collections.abc import Iterator

from services.registry.domain import CanaryPolicy, Gate, RebuildPolicy, Specialist
from services.registry.rules.canary import find_policy_violations
from services.registry.rules.expert_queue import find_judging_violations
from services.registry.rules.filters import find_filter_violations
from services.registry.rules.gate import BEAT
from services.registry.rules.measuring import (
    find_evaluation_violations,
    find_metric_violations,
    find_sampling_violations,
)
from services.registry.rules.pipelines import find_pipeline_violations
from services.registry.rules.rows import find_row_violations
from services.registry.rules.sample_size import LOG_LIKELIHOOD, PAIRED
from tailor.errors import InvalidArgument, Reason

PROMPT, EXTERNAL = "prompt", "external:"
SHARES = ("max_forgetting", "max_refusal_drop")
# What evaluation measures for a specialist that names no metrics.
BUILT_IN = ("rouge1", "rouge2", "rougeL", "bleu", "terms", "repetition", "fabrication", "perplexity")
SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
RESERVED_NAMES = {"base"}
MAX_HOUSE_TERMS = 1000


def check_specialist(specialist: Specialist) -> None:
    """Raises InvalidArgument with a violation per invalid field."""
    violations: dict[str, str] = {}
    if not SLUG.fullmatch(specialist.name) or specialist.name in RESERVED_NAMES:
        violations["name"] = "must have 1 to 63 characters of a-z, 0-9 and '-', and must not be 'base'"
    for name in ("base", "recipe"):
        if not SLUG.fullmatch(getattr(specialist, name)):
            violations[name] = "must be a slug of a-z, 0-9 and '-'"
    if len(specialist.house_terms) > MAX_HOUSE_TERMS:
        violations["house_terms"] = f"must have at most {MAX_HOUSE_TERMS} terms"
    for name in ("monthly_budget", "max_training_hours"):
        limit = getattr(specialist, name)
        if not math.isfinite(limit) or limit < 0:
            violations[name] = "must be a number above 0, or 0 for no limit"
    violations |= find_gate_violations(specialist) | _check_rebuild(specialist.rebuild)
    violations |= find_judging_violations(specialist.judging)
    violations |= find_filter_violations(specialist.filters) | find_row_violations(specialist.rows)
    violations |= find_sampling_violations(specialist.sampling) | find_metric_violations(specialist.metrics)
    violations |= find_evaluation_violations(specialist.evaluation)
    violations |= find_policy_violations(specialist.canary or CanaryPolicy()) | find_pipeline_violations(specialist)
    if violations:
        raise InvalidArgument(
            Reason.INVALID_SPECIALIST, "The specialist's definition is invalid.", field_violations=violations
        )


def _check_rebuild(rebuild: RebuildPolicy) -> dict[str, str]:
    if min(rebuild.min_new_items, rebuild.quiet_seconds, rebuild.min_interval_seconds) < 0:
        return {"rebuild": "counts and seconds must be 0 or more"}
    return {}


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
