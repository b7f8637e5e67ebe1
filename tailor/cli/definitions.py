"""Reads and writes a specialist's definition as TOML, in which enums are plain words and a metric's parameters are fields of its table."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from tailor.api.events.v1 import models_pb2
from tailor.cli.messages import to_dict
from tailor.errors import InvalidArgument, Reason

# Fields whose values are words, and the prefix of their protobuf names.
ENUMS = {"promotion": "PROMOTION_MODE_", "on_erasure": "ON_ERASURE_", "thinking": "THINKING_"}
THRESHOLDS = (
    "`[[gate.thresholds]]` is no longer read: write `[gate.primary]` with `metric` and `min_gain` for the metric that decides, and a "
    "`[[gate.guards]]` with `metric` and `margin` for each that must not be lost."
)
PREFERENCE_RECIPE = (
    '`preference_recipe` is no longer read: write `stages = ["sft", "dpo"]`, and under `[recipes]` the recipe of a stage if it is not the '
    "one of its name."
)
METRIC_FIELDS = {"name", "kind", "parameters_json"}
# What the registry sets. Without a revision, a file can be applied again.
NOT_IN_FILES = ("revision", "update_time", "deleted")


def read_definition(path: Path) -> models_pb2.SpecialistChanged:
    """Read a definition from a TOML file. Raises InvalidArgument if it is not valid."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidArgument(Reason.INVALID_TOML, f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise InvalidArgument(Reason.INVALID_TOML, f"{path} is not UTF-8: byte {error.start} is invalid.") from None
    return parse_definition(text, str(path))


def parse_definition(text: str, source: str) -> models_pb2.SpecialistChanged:
    """Read a definition from TOML. Messages call it `source`. Raises InvalidArgument if it is not valid."""
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidArgument(Reason.INVALID_TOML, f"{source} is not TOML: {error}.") from None
    try:
        return json_format.ParseDict(_to_message_fields(document), models_pb2.SpecialistChanged())
    except (json_format.ParseError, TypeError, ValueError) as error:
        raise InvalidArgument(
            Reason.INVALID_DEFINITION, f"{source} is not a valid definition of a specialist: {error}"
        ) from None


def to_fields(definition: models_pb2.SpecialistChanged) -> dict[str, Any]:
    """A definition as the fields of a TOML file, without those at their defaults; `read_definition` reads it back."""
    fields = _set_fields(definition)
    for name in NOT_IN_FILES:
        fields.pop(name, None)
    if definition.metrics:
        fields["metrics"] = [_to_inline(metric) for metric in definition.metrics]
    return fields


def _to_inline(metric: models_pb2.MetricDefinition) -> dict[str, Any]:
    """A metric with its parameters next to its name. Parameters that TOML cannot hold, such as null, stay JSON."""
    named = {"name": metric.name, **({"kind": metric.kind} if metric.kind not in ("", metric.name) else {})}
    parameters = list_parameters(metric)
    if _has_null(parameters) or METRIC_FIELDS & parameters.keys():
        return {**named, "parameters_json": metric.parameters_json}
    return {**named, **parameters}


def _has_null(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_null, value.values()))
    return value is None or (isinstance(value, list) and any(map(_has_null, value)))


def _set_fields(message: Message) -> dict[str, Any]:
    values = to_dict(message)
    return {field.name: _set_value(field.name, value, values[field.name]) for field, value in message.ListFields()}


def _set_value(name: str, value: Any, shown: Any) -> Any:
    if name in ENUMS:
        return shown.removeprefix(ENUMS[name]).lower()
    if isinstance(value, Message):
        return _set_fields(value)
    if isinstance(shown, list):
        return [_set_fields(item) if isinstance(item, Message) else item for item in value]
    return shown


def list_parameters(metric: models_pb2.MetricDefinition) -> dict[str, Any]:
    """A metric's parameters by name."""
    parameters: dict[str, Any] = json.loads(metric.parameters_json or "{}")
    return parameters


def list_set_fields(message: models_pb2.EvaluationPolicy) -> dict[str, Any]:
    """The fields that are set, as in TOML."""
    return {name: value for name, value in to_dict(message).items() if value not in ("", 0, [], False)}


def _to_message_fields(document: Mapping[str, Any]) -> dict[str, Any]:
    fields = dict(document)
    if isinstance(fields.get("gate"), dict) and "thresholds" in fields["gate"]:
        raise ValueError(THRESHOLDS)
    if "preference_recipe" in fields:
        raise ValueError(PREFERENCE_RECIPE)
    fields = _to_enums(fields)
    if isinstance(fields.get("sampling"), dict):
        fields["sampling"] = _to_enums(fields["sampling"])
    if isinstance(fields.get("metrics"), list):
        fields["metrics"] = [_to_metric(metric) for metric in fields["metrics"]]
    return fields


def _to_enums(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields with the protobuf names of their words."""
    return {
        name: ENUMS[name] + value.removeprefix(ENUMS[name]).upper()
        if name in ENUMS and isinstance(value, str)
        else value
        for name, value in fields.items()
    }


def _to_metric(metric: Any) -> Any:
    """Move what is not a field of the message into its parameters."""
    if not isinstance(metric, dict):
        return metric
    parameters = {name: value for name, value in metric.items() if name not in METRIC_FIELDS}
    fields = {name: value for name, value in metric.items() if name in METRIC_FIELDS}
    return fields | ({"parameters_json": json.dumps(parameters, sort_keys=True, allow_nan=False)} if parameters else {})
