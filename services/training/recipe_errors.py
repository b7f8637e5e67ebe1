"""What is wrong with a recipe, in words that say what would be right."""

from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError


def explain(error: ValidationError, recipe: type[BaseModel]) -> dict[str, str]:
    """Each wrong field by its path, with what would be right."""
    words: dict[str, str] = {}
    for item in error.errors():
        # What is left out is not of the recipe: pydantic's name for one of several forms that a value may have.
        path = [part for part in item["loc"] if isinstance(part, int) or "[" not in part]
        field = ".".join(map(str, path)) or item["type"]
        told = item["msg"]
        if item["type"] == "extra_forbidden":
            told = f"is not permitted; the keys here are {', '.join(_keys(recipe, path[:-1]))}"
        elif item["type"] == "missing":
            told = "is missing, and has no default; set it"
        words[field] = f"{words[field]}, or: {told}" if field in words else told
    return words


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
