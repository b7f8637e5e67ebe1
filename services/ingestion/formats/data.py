"""JSON files: an example, or data as lists, tables and sections."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from services.ingestion.domain import File, ParsedText, Rejected, RejectionReason, clean, malformed
from services.ingestion.formats.budget import Budget
from services.ingestion.formats.table import markdown_table
from services.ingestion.formats.text import declared_charset, decode
from services.ingestion.golden import is_golden, to_golden

MAX_DEPTH = 32
MAX_COLUMNS = 20
LONG = 200


class JsonNumber(str):
    """A number as it was written, without rounding."""

    __slots__ = ()


def parse_json(file: File, budget: Budget) -> ParsedText:
    """An object of `prompt` and `answer` is an example, one of `prompt` and `reference` a golden document.

    Anything else becomes Markdown, with numbers as they were written.
    """
    try:
        text = decode(file.data, declared_charset(file.content_type))
        content = json.loads(text, parse_int=JsonNumber, parse_float=JsonNumber, parse_constant=JsonNumber)
    except ValueError:
        raise Rejected(
            RejectionReason.CORRUPT, "The file is not valid JSON. Check it with a JSON linter.", "json"
        ) from None
    except RecursionError:
        raise _too_deep() from None
    if isinstance(content, dict) and set(content) - {"kind"} == {"prompt", "answer"}:
        return _example(content)
    if isinstance(content, dict) and is_golden(content) and content.get("kind", "test") == "test":
        return to_golden(content["prompt"], content["reference"], content.get("key_insights"))
    return ParsedText(clean("\n\n".join(_within_budget(_blocks(content, 1, budget), budget))), "json")


def _example(content: dict[str, Any]) -> ParsedText:
    if content.pop("kind", "example") != "example":
        raise malformed(
            "A JSON file with `prompt` and `answer` is an example. Set its `kind` to `example` or leave it out."
        )
    if not all(type(part) is str for part in content.values()):
        raise malformed("`prompt` and `answer` of an example must be strings.")
    prompt = clean(content["prompt"]).strip()
    if not prompt:
        raise malformed("`prompt` of an example must not be empty.")
    return ParsedText(clean(content["answer"]), "json", prompt)


def _within_budget(blocks: Iterable[str], budget: Budget) -> Iterator[str]:
    for block in blocks:
        budget.take("characters", len(block), "json")
        yield block


def _blocks(value: Any, level: int, budget: Budget) -> Iterator[str]:
    if level > MAX_DEPTH:
        raise _too_deep()
    if isinstance(value, dict):
        yield from _fields(value, level, budget)
    elif not isinstance(value, list):
        yield _scalar(value)
    elif not any(isinstance(item, dict | list) for item in value):
        yield "\n".join(f"- {' '.join(_scalar(item).split())}" for item in value)
    elif (columns := _columns(value)) is not None:
        rows = [columns, *([_scalar(item.get(column)) for column in columns] for item in value)]
        yield markdown_table(rows, budget, "json")
    else:
        for number, item in enumerate(value, 1):
            if item not in ({}, []):
                yield _heading(str(number), level)
                yield from _blocks(item, level + 1, budget)


def _fields(value: dict[str, Any], level: int, budget: Budget) -> Iterator[str]:
    """Short values as a list first, then a section for each other value."""
    short = {key: field for key, field in value.items() if _is_short(field)}
    if short:
        yield "\n".join(f"- {' '.join(key.split())}: {_scalar(field)}" for key, field in short.items())
    for key, field in value.items():
        if key not in short and field not in ({}, []):
            yield _heading(key, level)
            yield from _blocks(field, level + 1, budget)


def _columns(value: list[Any]) -> list[str] | None:
    """The columns of a list of flat objects, or None if the list is not a table."""
    columns: dict[str, None] = {}
    for item in value:
        if not isinstance(item, dict) or not all(map(_is_short, item.values())):
            return None
        columns.update(dict.fromkeys(item))
        if len(columns) > MAX_COLUMNS:
            return None
    return list(columns)


def _is_short(value: Any) -> bool:
    return not isinstance(value, dict | list) and len(text := _scalar(value)) <= LONG and "\n" not in text


def _scalar(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value).strip()


def _heading(title: str, level: int) -> str:
    return f"{'#' * min(level, 6)} {' '.join(title.split())}"


def _too_deep() -> Rejected:
    return Rejected(
        RejectionReason.TOO_LARGE,
        f"The JSON nests deeper than {MAX_DEPTH} levels. Publish it with less nesting.",
        "json",
    )
