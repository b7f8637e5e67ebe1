"""Every field that a gRPC door accepts can be sent in an event: one table bounds them."""

import importlib
import pkgutil

import pytest
from google.protobuf import descriptor_pool, message_factory

import tailor.api
from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.errors import InvalidArgument, Reason
from tailor.limits import LIMITS, MAX_BYTES, check_limits

MAX_RECORD = 1_048_576

for module in pkgutil.walk_packages(tailor.api.__path__, "tailor.api."):
    if module.name.endswith("_pb2"):
        importlib.import_module(module.name)


def violations(specialist: models_pb2.SpecialistChanged) -> dict[str, str]:
    with pytest.raises(InvalidArgument) as caught:
        check_limits(registry_pb2.CreateSpecialistRequest(specialist=specialist))
    assert caught.value.reason == Reason.FIELD_TOO_LONG
    return caught.value.field_violations


@pytest.mark.parametrize("name", LIMITS)
def test_the_table_names_fields_that_exist(name: str) -> None:
    message = message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(name))
    assert set(LIMITS[name]) <= {field.name for field in message.DESCRIPTOR.fields}


def test_every_text_of_a_specialist_is_bounded() -> None:
    unbounded = []
    seen: set[str] = set()

    def walk(descriptor: object) -> None:
        name, fields = descriptor.full_name, descriptor.fields  # type: ignore[attr-defined]
        if name in seen:
            return
        seen.add(name)
        for field in fields:
            if field.type == field.TYPE_STRING and field.name not in LIMITS.get(name, {}):
                unbounded.append(f"{name}.{field.name}")
            if field.message_type is not None:
                walk(field.message_type)

    walk(models_pb2.SpecialistChanged.DESCRIPTOR)
    assert unbounded == []


@pytest.mark.parametrize("recipes", [{"dpo": "x" * 65}, {"y" * 65: "gentle"}, {str(n): "gentle" for n in range(11)}])
def test_the_recipes_of_stages_are_bounded(recipes: dict[str, str]) -> None:
    assert list(violations(models_pb2.SpecialistChanged(name="reports", recipes=recipes))) == ["specialist.recipes"]


def test_names_each_field_that_is_too_long() -> None:
    specialist = models_pb2.SpecialistChanged(name="reports", description="x" * 15_000_000, system_prompt="y" * 20_001)
    specialist.selection.sources.extend(str(number) for number in range(100_000))
    assert set(violations(specialist)) >= {
        "specialist.description",
        "specialist.system_prompt",
        "specialist.selection.sources",
    }


def test_a_definition_with_every_field_at_its_limit_is_still_bounded() -> None:
    specialist = models_pb2.SpecialistChanged(name="reports", house_terms=["é" * 100] * 1_000)
    specialist.selection.sources.extend(["a" * 64] * 1_000)
    specialist.evaluation.guidelines = "字" * 20_000
    specialist.system_prompt = "字" * 20_000
    specialist.rows.own_tasks.extend([models_pb2.OwnTask(name="t", instruction="字" * 4_000)] * 10)
    assert violations(specialist) == {"specialist": "must have at most 400,000 bytes in all"}
    assert max(MAX_BYTES.values()) < MAX_RECORD / 2


def test_an_ordinary_definition_passes() -> None:
    specialist = models_pb2.SpecialistChanged(name="reports", description="Reports.", system_prompt="Write plainly.")
    check_limits(registry_pb2.CreateSpecialistRequest(specialist=specialist))
