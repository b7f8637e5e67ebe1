"""How a specialist may answer by default, and how its candidates may be evaluated. Inference and evaluation apply it."""

import re
from collections.abc import Iterable, Iterator, Sequence

from tailor.metric_kinds import list_violations
from tailor.values import Criterion, EvaluationPolicy, MetricDefinition, SamplingDefaults

NAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9_-]{0,61}[a-zA-Z0-9])?")
NAME_RULE = "must have 1 to 63 characters of a-z, A-Z, 0-9, '_' and '-'"
SUITES = ("forgetting", "safety", "memorisation")
MAX_EXAMPLES = 20
MAX_GUIDELINES = 8000
MAX_CRITERIA = 20
MAX_DESCRIPTION = 500
MAX_EXTERNAL_MODELS = 5
COUNTS = ("max_rows", "max_answers", "max_suite_items")


def find_sampling_violations(sampling: SamplingDefaults) -> dict[str, str]:
    """Violations by field; empty for valid sampling."""
    violations = {}
    if not 0 <= sampling.temperature <= 2:
        violations["sampling.temperature"] = "must be 0 to 2"
    if not 0 < sampling.top_p <= 1:
        violations["sampling.top_p"] = "must be above 0 and at most 1"
    if not 1 <= sampling.repetition_penalty <= 2:
        violations["sampling.repetition_penalty"] = "must be 1 to 2"
    if sampling.max_tokens < 0:
        violations["sampling.max_tokens"] = "must be 0 (what the base's context leaves) or more"
    return violations


def find_metric_violations(metrics: Sequence[MetricDefinition]) -> dict[str, str]:
    """Violations by field, those of a kind's parameters among them, such as `metrics[1].regex`; empty for valid metrics."""
    return list_violations(metrics)


def find_evaluation_violations(policy: EvaluationPolicy) -> dict[str, str]:
    """Violations by field; empty for a valid policy."""
    violations = (*_check_limits(policy), *_check_names(policy), *_check_criteria(policy.criteria))
    return {f"evaluation.{field}": problem for field, problem in violations}


def _check_limits(policy: EvaluationPolicy) -> Iterator[tuple[str, str]]:
    yield from ((name, "must be 0 (the default) or more") for name in COUNTS if getattr(policy, name) < 0)
    if not 0 <= policy.few_shot <= MAX_EXAMPLES:
        yield "few_shot", f"must be 0 to {MAX_EXAMPLES} examples"
    if len(policy.guidelines) > MAX_GUIDELINES:
        yield "guidelines", f"must have at most {MAX_GUIDELINES:,} characters"
    if not 0 <= policy.min_judge_agreement <= 1:
        yield "min_judge_agreement", "must be 0 to 1"


def _check_names(policy: EvaluationPolicy) -> Iterator[tuple[str, str]]:
    if len(policy.external_models) > MAX_EXTERNAL_MODELS:
        yield "external_models", f"must have at most {MAX_EXTERNAL_MODELS} models"
    for index, name in enumerate(policy.external_models):
        if not NAME.fullmatch(name):
            yield f"external_models[{index}]", NAME_RULE
    for index, name in enumerate(policy.suites):
        if name not in SUITES:
            yield f"suites[{index}]", f"must be one of {', '.join(SUITES)}"
    yield from _find_repeats("external_models", policy.external_models)
    yield from _find_repeats("suites", policy.suites)


def _check_criteria(criteria: Sequence[Criterion]) -> Iterator[tuple[str, str]]:
    if len(criteria) > MAX_CRITERIA:
        yield "criteria", f"must have at most {MAX_CRITERIA} criteria"
    for index, criterion in enumerate(criteria):
        if not NAME.fullmatch(criterion.name):
            yield f"criteria[{index}].name", NAME_RULE
        if not criterion.description.strip() or len(criterion.description) > MAX_DESCRIPTION:
            yield f"criteria[{index}].description", f"must have 1 to {MAX_DESCRIPTION} characters"
    yield from _find_repeats("criteria", (criterion.name for criterion in criteria))


def _find_repeats(field: str, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            yield f"{field}[{index}]", "is listed twice"
        seen.add(name)
