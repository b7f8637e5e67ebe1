"""The difference that an update makes to a definition, field by field, as in TOML."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from services.registry.domain import Specialist

NOT_SHOWN = {"revision", "update_time", "deleted"}
# Fields by which the items of a list are told apart.
KEYS = ("name", "metric")


@dataclass(frozen=True)
class FieldChange:
    """A field with its values as in TOML; empty means that it is not set."""

    field: str
    before: str
    after: str


def list_changes(before: Specialist, after: Specialist) -> tuple[FieldChange, ...]:
    """The fields that differ, in the order of the definition."""
    old, new = _fields(before), _fields(after)
    names = dict.fromkeys((*old, *new))
    changes = (FieldChange(name, old.get(name, ""), new.get(name, "")) for name in names)
    return tuple(change for change in changes if change.before != change.after)


def _fields(specialist: Specialist) -> dict[str, str]:
    values = {name: value for name, value in asdict(specialist).items() if name not in NOT_SHOWN}
    return dict(_flatten("", values))


def _flatten(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _flatten(f"{path}.{name}" if path else name, part)
    elif isinstance(value, tuple) and value and isinstance(value[0], Mapping):
        for index, item in enumerate(value):
            key = next((item[name] for name in KEYS if name in item), index)
            yield from _flatten(f"{path}[{key}]", item)
    elif value is not None:
        yield path, json.dumps(value, ensure_ascii=False)
