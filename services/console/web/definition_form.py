"""The form of a specialist's pipeline, gate, metrics, evaluation, sampling and promotion, as text fields."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.message import Message
from pydantic import BaseModel

from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import models_pb2
from tailor.errors import InvalidArgument, Reason

APPROVAL = models_pb2.PROMOTION_MODE_APPROVAL
AUTOMATIC = models_pb2.PROMOTION_MODE_AUTOMATIC
TRUE = "yes"
THINKING = {
    "": common_pb2.THINKING_UNSPECIFIED,
    "off": common_pb2.THINKING_OFF,
    "hidden": common_pb2.THINKING_HIDDEN,
    "shown": common_pb2.THINKING_SHOWN,
}
# Form field, name in the message, type of the number.
SAMPLING = (
    ("temperature", float),
    ("top_p", float),
    ("repetition_penalty", float),
    ("max_tokens", int),
)
LIMITS = (
    ("min_rows", int),
    ("max_parity", float),
    ("max_forgetting", float),
    ("max_refusal_drop", float),
    ("max_memorised", int),
)
COUNTS = (
    ("max_rows", int),
    ("max_answers", int),
    ("few_shot", int),
    ("min_judge_agreement", float),
    ("max_suite_items", int),
)
REBUILD = (("min_ranked_prompts", int),)
PRIMARY = (("min_gain", float), ("min_gain_over_incumbent", float))


class DefinitionForm(BaseModel):
    """The fields as the browser sends them. An empty field means its default."""

    revision: int = 0
    promotion: str = "automatic"
    stages: str = ""
    recipes: str = ""
    min_ranked_prompts: str = ""
    temperature: str = ""
    top_p: str = ""
    repetition_penalty: str = ""
    max_tokens: str = ""
    thinking: str = ""
    primary_metric: str = ""
    min_gain: str = ""
    min_gain_over_incumbent: str = ""
    beat: str = ""
    guards: str = ""
    min_rows: str = ""
    max_parity: str = ""
    max_forgetting: str = ""
    max_refusal_drop: str = ""
    max_memorised: str = ""
    metrics: str = ""
    max_rows: str = ""
    max_answers: str = ""
    few_shot: str = ""
    guidelines: str = ""
    optimize_prompt: str = ""
    external_models: str = ""
    suites: str = ""
    criteria: str = ""
    min_judge_agreement: str = ""
    max_suite_items: str = ""


def to_form(definition: models_pb2.SpecialistChanged) -> DefinitionForm:
    """The form of the current definition."""
    gate, policy = definition.gate, definition.evaluation
    numbers = {
        **_show_numbers(definition.sampling, SAMPLING),
        **_show_numbers(gate.primary, PRIMARY),
        **_show_numbers(gate, LIMITS),
        **_show_numbers(policy, COUNTS),
        **_show_numbers(definition.rebuild, REBUILD),
    }
    return DefinitionForm(
        revision=definition.revision,
        promotion="approval" if definition.promotion == APPROVAL else "automatic",
        thinking=next(word for word, number in THINKING.items() if number == definition.sampling.thinking),
        stages=", ".join(definition.stages),
        recipes="\n".join(f"{stage} {recipe}" for stage, recipe in sorted(definition.recipes.items())),
        primary_metric=gate.primary.metric,
        beat=", ".join(gate.beat),
        guards="\n".join(f"{guard.metric} {guard.margin}" for guard in gate.guards),
        metrics="\n".join(_show_metric(metric) for metric in definition.metrics),
        guidelines=policy.guidelines,
        optimize_prompt=TRUE if policy.optimize_prompt else "",
        external_models=", ".join(policy.external_models),
        suites=", ".join(policy.suites),
        criteria="\n".join(f"{item.name}: {item.description}" for item in policy.criteria),
        **numbers,
    )


def add_proposals(form: DefinitionForm, guideline: str, criterion: str) -> DefinitionForm:
    """The form with a guideline as a further line, and with a sentence as a further criterion, whose name an operator changes."""
    lines, line = form.guidelines.splitlines(), " ".join(guideline.split())
    criteria, sentence = form.criteria.splitlines(), " ".join(criterion.split())
    if line and line not in lines:
        lines.append(line)
    if sentence and not any(item.endswith(sentence) for item in criteria):
        criteria.append(f"criterion-{len(criteria) + 1}: {sentence}")
    return form.model_copy(update={"guidelines": "\n".join(lines), "criteria": "\n".join(criteria)})


def to_definition(form: DefinitionForm, current: models_pb2.SpecialistChanged) -> models_pb2.SpecialistChanged:
    """The current definition with the form's fields. Raises InvalidArgument with a violation per field that cannot be read."""
    reader = _Reader(form)
    definition = models_pb2.SpecialistChanged()
    definition.CopyFrom(current)
    for field in ("gate", "sampling", "metrics", "evaluation", "stages", "recipes"):
        definition.ClearField(field)
    if definition.rebuild.min_ranked_prompts:
        definition.rebuild.ClearField("min_ranked_prompts")
    definition.revision = form.revision
    definition.promotion = APPROVAL if form.promotion == "approval" else AUTOMATIC
    definition.stages.extend(_words(form.stages))
    definition.recipes.update(reader.lines("recipes", _read_recipe))
    reader.fill(definition.rebuild, REBUILD)
    reader.fill(definition.sampling, SAMPLING)
    if number := THINKING.get(form.thinking):
        definition.sampling.thinking = number
    _fill_gate(definition.gate, form, reader)
    _fill_evaluation(definition.evaluation, form, reader)
    definition.metrics.extend(reader.lines("metrics", _read_metric))
    reader.check()
    return definition


def _fill_gate(gate: models_pb2.Gate, form: DefinitionForm, reader: "_Reader") -> None:
    gate.primary.metric = form.primary_metric.strip()
    reader.fill(gate.primary, PRIMARY)
    reader.fill(gate, LIMITS)
    gate.beat.extend(_words(form.beat))
    gate.guards.extend(reader.lines("guards", _read_guard))


def _fill_evaluation(policy: models_pb2.EvaluationPolicy, form: DefinitionForm, reader: "_Reader") -> None:
    reader.fill(policy, COUNTS)
    # Browsers send line ends as CRLF.
    policy.guidelines = form.guidelines.replace("\r\n", "\n").strip()
    policy.optimize_prompt = form.optimize_prompt == TRUE
    policy.external_models.extend(_words(form.external_models))
    policy.suites.extend(_words(form.suites))
    policy.criteria.extend(reader.lines("criteria", _read_criterion))


class _Reader:
    """Reads the fields of a form and collects violations."""

    def __init__(self, form: DefinitionForm) -> None:
        self._form = form
        self._violations: dict[str, str] = {}

    def fill(self, message: Message, fields: tuple[tuple[str, type], ...]) -> None:
        """Set numbers that are not empty."""
        for name, kind in fields:
            text = getattr(self._form, name).strip()
            if not text:
                continue
            try:
                setattr(message, name, kind(text))
            except ValueError:
                self._violations[name] = "must be a whole number" if kind is int else "must be a number"

    def lines(self, name: str, read: Callable[[str], Any]) -> Iterator[Any]:
        """The messages of a field with one on each line."""
        for number, line in enumerate(getattr(self._form, name).splitlines(), start=1):
            if not line.strip():
                continue
            try:
                yield read(line.strip())
            except ValueError as error:
                self._violations[name] = f"line {number} {error}"

    def check(self) -> None:
        if self._violations:
            raise InvalidArgument(
                Reason.INVALID_SPECIALIST, "The form cannot be read.", field_violations=self._violations
            )


def _read_guard(line: str) -> models_pb2.Guard:
    metric, _, margin = line.rpartition(" ")
    try:
        return models_pb2.Guard(metric=metric.strip(), margin=float(margin))
    except ValueError:
        raise ValueError("must be a metric and a margin, such as `rougeL 0.02`") from None


def _read_recipe(line: str) -> tuple[str, str]:
    words = line.split()
    if len(words) != 2:
        raise ValueError("must be a stage and its recipe, such as `dpo gentle`")
    return words[0], words[1]


def _read_criterion(line: str) -> models_pb2.Criterion:
    name, colon, description = line.partition(":")
    if not colon:
        raise ValueError("must be a name and a sentence, such as `tone: Sounds like a colleague.`")
    return models_pb2.Criterion(name=name.strip(), description=description.strip())


def _read_metric(line: str) -> models_pb2.MetricDefinition:
    head, brace, tail = line.partition("{")
    names = head.split()
    if not 1 <= len(names) <= 2:
        raise ValueError('must be a name, a kind and parameters, such as `house terms {"terms": ["a"]}`')
    parameters = f"{brace}{tail}"
    try:
        parsed = json.loads(parameters or "{}")
    except json.JSONDecodeError:
        raise ValueError("has parameters that are not JSON") from None
    text = json.dumps(parsed, sort_keys=True) if parsed else ""
    return models_pb2.MetricDefinition(name=names[0], kind=names[-1], parameters_json=text)


def _show_metric(metric: models_pb2.MetricDefinition) -> str:
    kind = f" {metric.kind}" if metric.kind not in ("", metric.name) else ""
    parameters = f" {metric.parameters_json}" if metric.parameters_json not in ("", "{}") else ""
    return f"{metric.name}{kind}{parameters}"


def _show_numbers(message: Message, fields: tuple[tuple[str, type], ...]) -> dict[str, Any]:
    """Numbers that are set; others are empty, which means the default."""
    set_fields = {field.name for field, _ in message.ListFields()}
    return {name: str(getattr(message, name)) for name, _ in fields if name in set_fields}


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()
