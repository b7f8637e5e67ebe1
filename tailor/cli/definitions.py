"""Reads a specialist's definition from TOML, in which enums are plain words and a metric's parameters stand beside its name."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from tailor.api.events.v1 import models_pb2
from tailor.cli.messages import to_dict
from tailor.errors import InvalidArgument, Reason

# Fields whose values are words, and the prefix of their protobuf names.
ENUMS = {"promotion": "PROMOTION_MODE_", "on_erasure": "ON_ERASURE_"}
THRESHOLDS = (
    "`[[gate.thresholds]]` is no longer read: write `[gate.primary]` with `metric` and `min_gain` for the metric that decides, and a "
    "`[[gate.guards]]` with `metric` and `margin` for each that must not be lost."
)
METRIC_FIELDS = {"name", "kind", "parameters_json"}


def read_definition(path: Path) -> models_pb2.SpecialistChanged:
    """Read a definition from a TOML file. Raises InvalidArgument if it is not valid."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidArgument(Reason.INVALID_TOML, f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise InvalidArgument(Reason.INVALID_TOML, f"{path} is not UTF-8: byte {error.start} is invalid.") from None
    except tomllib.TOMLDecodeError as error:
        raise InvalidArgument(Reason.INVALID_TOML, f"{path} is not TOML: {error}.") from None
    try:
        return json_format.ParseDict(_to_message_fields(document), models_pb2.SpecialistChanged())
    except (json_format.ParseError, TypeError, ValueError) as error:
        raise InvalidArgument(
            Reason.INVALID_DEFINITION, f"{path} is not a valid definition of a specialist: {error}"
        ) from None


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
    for name, prefix in ENUMS.items():
        value = fields.get(name)
        if isinstance(value, str) and not value.startswith(prefix):
            fields[name] = prefix + value.upper()
    if isinstance(fields.get("metrics"), list):
        fields["metrics"] = [_to_metric(metric) for metric in fields["metrics"]]
    return fields


def _to_metric(metric: Any) -> Any:
    """Move what is not a field of the message into its parameters."""
    if not isinstance(metric, dict):
        return metric
    parameters = {name: value for name, value in metric.items() if name not in METRIC_FIELDS}
    fields = {name: value for name, value in metric.items() if name in METRIC_FIELDS}
    return fields | ({"parameters_json": json.dumps(parameters, sort_keys=True, allow_nan=False)} if parameters else {})
