"""The texts that a JSON schema makes a model write: its enum and const, which may be personal values."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from services.inference.checks import SCHEMA
from tailor.errors import InvalidArgument, Reason

# What is written for people, and no model sees.
REMARKS = ("title", "description", "$comment")
SHORTEST_VALUE = 3


def choices(schema: Any) -> Iterator[str]:
    """Texts that an answer may have to hold, as they stand in `enum` and `const`."""
    if isinstance(schema, dict):
        offered = schema.get("enum")
        listed = [*(offered if isinstance(offered, list) else ()), schema.get("const")]
        yield from (choice for choice in listed if isinstance(choice, str) and choice.strip())
    for part in _parts(schema):
        yield from choices(part)


def with_choices(schema: Any, hidden: Mapping[str, str]) -> Any:
    """The schema with other texts in `enum` and `const`, and without remarks."""
    if isinstance(schema, list):
        return [with_choices(part, hidden) for part in schema]
    if not isinstance(schema, dict):
        return schema
    changed: dict[str, Any] = {}
    for name, part in schema.items():
        if name in REMARKS and isinstance(part, str):
            continue
        if name == "enum" and isinstance(part, list):
            changed[name] = [hidden.get(choice, choice) if isinstance(choice, str) else choice for choice in part]
        elif name == "const" and isinstance(part, str):
            changed[name] = hidden.get(part, part)
        else:
            changed[name] = with_choices(part, hidden)
    return changed


def refuse_values(schema: str, values: Iterable[str]) -> None:
    """InvalidArgument where a value of the prompt stands in the schema as a word."""
    for value in values:
        spelt = json.dumps(value, ensure_ascii=False)[1:-1]
        if len(value) >= SHORTEST_VALUE and re.search(rf"(?<!\w){re.escape(spelt)}(?!\w)", schema):
            message = "Prompts of this specialist are private: personal data may stand in enum and const alone."
            raise InvalidArgument(Reason.PRIVATE_SCHEMA, message, field_violations={SCHEMA: message})


def _parts(schema: Any) -> Iterable[Any]:
    return schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
