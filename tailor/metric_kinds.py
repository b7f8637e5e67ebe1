"""The kinds of metrics that a specialist can name, and the parameters of each.

Light, so that the registry checks a specialist's metrics when it is created. `services/evaluation/metrics/` measures them.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from tailor.errors import InvalidArgument, Reason
from tailor.values import MetricDefinition

MAX_METRICS = 50
MAX_PARAMETERS_CHARS = 64_000
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
NAME_RULE = "must have at most 63 characters, each a letter, a digit, '.', '_' or '-', and begin with a letter or digit"

Text = Annotated[str, Field(min_length=1, max_length=1000)]
Words = Annotated[tuple[Text, ...], Field(max_length=2000)]


class MetricParameters(BaseModel):
    """Parameters that every kind has: the tasks whose rows are measured, all if empty, and the goals that reports show.

    `goal` is a value that the candidate should reach, `goal_gain` the gain over the base. Both are in the metric's unit.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, frozen=True)

    tasks: tuple[Text, ...] = ()
    goal: float | None = Field(None, allow_inf_nan=False)
    goal_gain: float | None = Field(None, allow_inf_nan=False)


class BleuParameters(MetricParameters):
    """`tokenize` is sacrebleu's; `char` and `zh` are for languages without spaces."""

    tokenize: Literal["13a", "intl", "zh", "char"] = "13a"


class TermsParameters(MetricParameters):
    """Terms to look for, the specialist's house terms if empty; and by term the words that must not stand in its place."""

    terms: Words = ()
    instead_of: dict[Text, Words] = Field(default_factory=dict, max_length=2000)


class CitationsParameters(MetricParameters):
    """The pattern of a citation, and the register of those that exist; without a register, the source is enough."""

    pattern: str = Field(r"\[[^\[\]\n]{1,60}\]", min_length=1, max_length=1000)
    entries: Words = Field((), alias="register")

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        return _check_pattern(pattern)


class RepetitionParameters(MetricParameters):
    """The number of words of an n-gram."""

    words: int = Field(4, ge=1, le=20)


class PitchParameters(MetricParameters):
    """A description of the readers by task, and whether the judge model must tell the pitches apart."""

    pitches: dict[Text, Text] = Field(
        default_factory=lambda: {
            "report": "a full report for the people who do the work",
            "board_summary": "a short summary for the board",
        },
        min_length=1,
        max_length=10,
    )
    judged: bool = True


class FormatParameters(MetricParameters):
    """A regular expression that the whole answer must match, or a JSON schema (2020-12). Exactly one of the two."""

    regex: str = Field("", max_length=1000)
    json_schema: dict[str, Any] | None = None

    @field_validator("regex")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        return _check_pattern(pattern)

    @model_validator(mode="after")
    def _has_one(self) -> "FormatParameters":
        if bool(self.regex) == (self.json_schema is not None):
            raise ValueError("needs either `regex` or `json_schema`")
        return self


class ClassificationParameters(MetricParameters):
    """The labels, those of the references if empty; and whether every label or every row counts equally."""

    labels: Words = ()
    average: Literal["macro", "micro"] = "macro"


class JudgeParameters(MetricParameters):
    """Marks by the specialist's criteria, or comparisons with another model of the evaluation."""

    mode: Literal["rubric", "pairwise"] = "rubric"
    against: Text = "base"


class RemoteParameters(MetricParameters):
    """A metric service by its name in evaluation's settings, the name of its metric, and what the service itself takes."""

    service: Text
    metric: Text
    parameters: dict[str, Any] = Field(default_factory=dict)
    lower_is_better: bool = False


PARAMETERS: Mapping[str, type[MetricParameters]] = {
    "rouge1": MetricParameters,
    "rouge2": MetricParameters,
    "rougeL": MetricParameters,
    "bleu": BleuParameters,
    "chrf": MetricParameters,
    "log_likelihood": MetricParameters,
    "perplexity": MetricParameters,
    "pair_margin": MetricParameters,
    "win_rate": MetricParameters,
    "terms": TermsParameters,
    "key_insights_f1": MetricParameters,
    "citations": CitationsParameters,
    "fabrication": MetricParameters,
    "repetition": RepetitionParameters,
    "pitch": PitchParameters,
    "format": FormatParameters,
    "classification_f1": ClassificationParameters,
    "judge": JudgeParameters,
    "remote": RemoteParameters,
}


def parse_parameters(kind: str, parameters_json: str) -> MetricParameters:
    """The validated parameters of a metric. Raises InvalidArgument (INVALID_METRIC) with a violation for each wrong field."""
    violations = list(_parameter_violations(kind, parameters_json))
    if violations:
        raise InvalidArgument(
            Reason.INVALID_METRIC, "A metric's definition is invalid.", field_violations=dict(violations)
        )
    return PARAMETERS[kind].model_validate_json(parameters_json or "{}")


def list_violations(metrics: Sequence[MetricDefinition], field: str = "metrics") -> dict[str, str]:
    """What is wrong with a specialist's metrics, by field, such as `metrics[2].regex`; empty if nothing is."""
    violations: dict[str, str] = {}
    if len(metrics) > MAX_METRICS:
        violations[field] = f"must have at most {MAX_METRICS} entries"
    names: set[str] = set()
    for number, metric in enumerate(metrics):
        place = f"{field}[{number}]"
        if not NAME.fullmatch(metric.name):
            violations[f"{place}.name"] = NAME_RULE
        elif metric.name in names:
            violations[f"{place}.name"] = "must be unique; another metric has this name"
        names.add(metric.name)
        kind_violations = _parameter_violations(metric.kind or metric.name, metric.parameters_json)
        violations |= {f"{place}.{name}": rule for name, rule in kind_violations}
    return violations


def _parameter_violations(kind: str, parameters_json: str) -> Iterator[tuple[str, str]]:
    if kind not in PARAMETERS:
        yield "kind", f"must be one of {', '.join(sorted(PARAMETERS))}"
        return
    if len(parameters_json) > MAX_PARAMETERS_CHARS:
        yield "parameters_json", f"must have at most {MAX_PARAMETERS_CHARS} characters"
        return
    try:
        content = json.loads(parameters_json or "{}")
    except (ValueError, RecursionError):
        yield "parameters_json", "must be JSON"
        return
    if not isinstance(content, dict):
        yield "parameters_json", "must be a JSON object"
        return
    try:
        PARAMETERS[kind].model_validate_json(parameters_json or "{}")
    except ValidationError as error:
        for mistake in error.errors(include_url=False, include_input=False):
            yield _violation(kind, mistake)


def _violation(kind: str, mistake: ErrorDetails) -> tuple[str, str]:
    field = ".".join(map(str, mistake["loc"])) or "parameters_json"
    if mistake["type"] == "extra_forbidden":
        names = (info.alias or name for name, info in PARAMETERS[kind].model_fields.items())
        return field, f"is not a parameter of {kind}; it has {', '.join(sorted(names))}"
    return field, mistake["msg"].removeprefix("Value error, ")


def _check_pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError):
        raise ValueError("must be a regular expression of Python's `re`") from None
    return pattern
