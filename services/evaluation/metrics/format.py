"""Format: a regular expression, or a JSON schema of the draft 2020-12 (json-schema.org)."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import referencing
from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import SchemaError, ValidationError
from referencing.exceptions import Unresolvable

from services.evaluation.domain import AnsweredRow
from services.evaluation.measurement import Measurement, mean_of
from services.evaluation.metrics.context import MetricContext
from services.evaluation.metrics.patterns import MAX_CHARS, SafePattern
from tailor.errors import InvalidArgument, Reason
from tailor.metric_kinds import FormatParameters


def measure(rows: Sequence[AnsweredRow], context: MetricContext) -> Measurement:
    """The share of answers that match as a whole, 0 to 1; white space around them does not count.

    An answer that is longer than 100,000 characters, or that takes over 0.2 seconds to match, does not match. Raises InvalidArgument
    (INVALID_METRIC) for a schema that is not one.
    """
    parameters = context.parameters_as(FormatParameters)
    matches: Callable[[str], bool]
    timeouts: Callable[[], int] = lambda: 0  # noqa: E731
    if parameters.json_schema is None:
        pattern = SafePattern(parameters.regex)
        matches, timeouts = pattern.matches, lambda: pattern.timeouts
    else:
        matches = _json_matcher(parameters.json_schema)
    measurement = mean_of(None if row.answer is None else float(matches(row.answer.strip())) for row in rows)
    return Measurement(measurement.statistics, measurement.combine, counts={"timeouts": timeouts()})


def _json_matcher(schema: Mapping[str, Any]) -> Callable[[str], bool]:
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError:
        raise InvalidArgument(
            Reason.INVALID_METRIC,
            "A metric's JSON schema is invalid.",
            field_violations={"json_schema": "is not a schema"},
        ) from None
    # Without a registry, jsonschema would fetch schemas that a `$ref` names.
    validator = SafeValidator(schema, registry=referencing.Registry())

    def matches(text: str) -> bool:
        if len(text) > MAX_CHARS:
            return False
        try:
            return bool(validator.is_valid(json.loads(text)))
        except (ValueError, RecursionError, Unresolvable):
            return False

    return matches


def _check_pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if validator.is_type(instance, "string") and not _compile(pattern).is_in(instance):
        yield ValidationError("does not match the pattern")


def _check_pattern_properties(
    validator: Any, patterns: Mapping[str, Any], instance: Any, schema: Any
) -> Iterator[ValidationError]:
    if validator.is_type(instance, "object"):
        for pattern, subschema in patterns.items():
            for name, value in instance.items():
                if _compile(pattern).is_in(name):
                    yield from validator.descend(value, subschema, path=name, schema_path=pattern)


@lru_cache(maxsize=256)
def _compile(pattern: str) -> SafePattern:
    return SafePattern(pattern)


SafeValidator = validators.extend(
    Draft202012Validator, {"pattern": _check_pattern, "patternProperties": _check_pattern_properties}
)
