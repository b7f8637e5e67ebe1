"""Rules that a specialist's definition and a judgement must fulfil."""

import math
import re
from collections.abc import Sequence

from services.registry.domain import CanaryPolicy, Draft, JudgementOutcome, RebuildPolicy, Specialist
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
MAX_RANKED = 8
MAX_COMMENT = 4000


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
    if not math.isfinite(specialist.monthly_budget) or specialist.monthly_budget < 0:
        violations["monthly_budget"] = "must be a number above 0, or 0 for no limit"
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


def check_judgement(
    ranking: tuple[str, ...], rubric: tuple[int, int, int], comment: str, outcome: JudgementOutcome
) -> None:
    """Raises InvalidArgument with a violation per invalid field."""
    violations: dict[str, str] = {}
    if not 1 <= len(ranking) <= MAX_RANKED or len(set(ranking)) != len(ranking):
        violations["ranking"] = f"must have 1 to {MAX_RANKED} different draft ids, the best first"
    if any(not 0 <= mark <= 5 for mark in rubric):
        violations["rubric"] = "marks must be 1 to 5, or 0 for no mark"
    if len(comment) > MAX_COMMENT:
        violations["comment"] = f"must have at most {MAX_COMMENT} characters"
    is_ranked = outcome is JudgementOutcome.RANKED
    if is_ranked and len(ranking) == 1 and not any(rubric):
        violations["rubric"] = "a single draft needs marks"
    if not is_ranked and any(rubric):
        violations["rubric"] = "must be left out if no draft is better"
    if not is_ranked and len(ranking) < 2:
        violations["outcome"] = "needs at least two drafts"
    if violations:
        raise InvalidArgument(Reason.INVALID_JUDGEMENT, "The judgement is invalid.", field_violations=violations)


def find_common_specialist(drafts: Sequence[Draft]) -> str:
    """The one specialist of the drafts, ignoring drafts of the base. Raises InvalidArgument unless there is exactly one."""
    names = {draft.specialist for draft in drafts if draft.specialist}
    if len(names) != 1:
        raise InvalidArgument(
            Reason.MIXED_DRAFTS, "Judge drafts of one specialist; drafts of the base may be among them."
        )
    return names.pop()
