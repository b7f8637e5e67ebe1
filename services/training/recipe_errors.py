"""Validation errors of a recipe as messages that say what would be right."""

from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError


def explain(error: ValidationError, recipe: type[BaseModel]) -> dict[str, str]:
    """Each wrong field, by its path, with the remedy."""
    messages: dict[str, str] = {}
    for item in error.errors():
        # Parts with brackets are pydantic's names for the alternatives of a union, not keys of the recipe.
        path = [part for part in item["loc"] if isinstance(part, int) or "[" not in part]
        field = ".".join(map(str, path)) or item["type"]
        message = item["msg"]
        if item["type"] == "extra_forbidden":
            message = f"is not permitted; the keys here are {', '.join(_keys(recipe, path[:-1]))}"
        elif item["type"] == "missing":
            message = "is missing, and has no default; set it"
        messages[field] = f"{messages[field]}, or: {message}" if field in messages else message
    return messages


def _keys(model: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    for part in path:
        if isinstance(part, str):
            model = next(_models(model.model_fields[part].annotation))
    return list(model.model_fields)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
