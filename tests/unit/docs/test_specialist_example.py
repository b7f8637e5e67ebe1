"""docs/registry/specialist.toml is a valid definition with every field that a person may set."""

import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf.descriptor import Descriptor

from services.registry import wire
from services.registry.rules.checks import check_specialist
from tailor.api.events.v1 import models_pb2
from tailor.cli.definitions import read_definition
from tailor.local.layout import ROOT

EXAMPLE = ROOT / "docs" / "registry" / "specialist.toml"
SET_BY_THE_REGISTRY = {"revision", "update_time", "deleted"}


def list_missing(table: Mapping[str, Any], message: Descriptor, prefix: str = "") -> Iterator[str]:
    """The fields of a message that a table of the example does not set."""
    for field in message.fields:
        value = table.get(field.name)
        if value is None:
            yield prefix + field.name
        elif field.message_type is not None and not field.message_type.GetOptions().map_entry:
            first = value[0] if isinstance(value, list) else value
            yield from list_missing(first, field.message_type, f"{prefix}{field.name}.")


def test_the_registry_accepts_the_example() -> None:
    check_specialist(wire.to_specialist(read_definition(EXAMPLE)))


def test_the_example_has_every_field() -> None:
    table = tomllib.loads(EXAMPLE.read_text(encoding="utf-8"))
    assert set(list_missing(table, models_pb2.SpecialistChanged.DESCRIPTOR)) == SET_BY_THE_REGISTRY
