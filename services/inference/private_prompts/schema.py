"""Texts that a JSON schema makes a model write. Its `enum` and `const` may be personal values."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from services.inference.validation import SCHEMA
from tailor.errors import InvalidArgument, Reason

# Annotations for people, which no model sees.
ANNOTATIONS = ("title", "description", "$comment")
MIN_VALUE_CHARACTERS = 3


def enum_texts(schema: Any) -> Iterator[str]:
    """The texts in `enum` and `const`, which an answer may have to contain."""
    if isinstance(schema, dict):
        choices = schema.get("enum")
        choices = [*(choices if isinstance(choices, list) else ()), schema.get("const")]
        yield from (choice for choice in choices if isinstance(choice, str) and choice.strip())
    for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from enum_texts(part)


def replace_enum_texts(schema: Any, replacements: Mapping[str, str]) -> Any:
    """The schema with the texts in `enum` and `const` replaced, and without annotations."""
    if isinstance(schema, list):
        return [replace_enum_texts(part, replacements) for part in schema]
    if not isinstance(schema, dict):
        return schema
    changed: dict[str, Any] = {}
    for name, part in schema.items():
        if name in ANNOTATIONS and isinstance(part, str):
            continue
        if name == "enum" and isinstance(part, list):
            changed[name] = [replacements.get(choice, choice) if isinstance(choice, str) else choice for choice in part]
        elif name == "const" and isinstance(part, str):
            changed[name] = replacements.get(part, part)
        else:
            changed[name] = replace_enum_texts(part, replacements)
    return changed


def refuse_values(schema: str, values: Iterable[str]) -> None:
    """Raise InvalidArgument (PRIVATE_SCHEMA) if a personal value of the prompt is a word of the schema."""
    for value in values:
        spelling = json.dumps(value, ensure_ascii=False)[1:-1]
        if len(value) >= MIN_VALUE_CHARACTERS and re.search(rf"(?<!\w){re.escape(spelling)}(?!\w)", schema):
            message = (
                "This specialist's prompts are private: a schema may contain personal data in `enum` and `const` only."
            )
            raise InvalidArgument(Reason.PRIVATE_SCHEMA, message, field_violations={SCHEMA: message})
