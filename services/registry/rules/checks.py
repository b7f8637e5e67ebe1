"""Rules that a specialist's definition must fulfil."""

import math
import re

from services.registry.domain import CanaryPolicy, RebuildPolicy, Specialist
from services.registry.rules.canary import find_policy_violations
from services.registry.rules.filters import find_filter_violations
from services.registry.rules.gate_checks import find_gate_violations
from services.registry.rules.judging import find_judging_violations
from services.registry.rules.measuring import (
    find_evaluation_violations,
    find_metric_violations,
    find_sampling_violations,
)
from services.registry.rules.programmes import find_programme_violations
from services.registry.rules.rows import find_row_violations
from tailor.errors import InvalidArgument, Reason

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
    violations |= find_policy_violations(specialist.canary or CanaryPolicy()) | find_programme_violations(specialist)
    if violations:
        raise InvalidArgument(
            Reason.INVALID_SPECIALIST, "The specialist's definition is invalid.", field_violations=violations
        )


def _check_rebuild(rebuild: RebuildPolicy) -> dict[str, str]:
    if min(rebuild.min_new_items, rebuild.quiet_seconds, rebuild.min_interval_seconds) < 0:
        return {"rebuild": "counts and seconds must be 0 or more"}
    return {}
