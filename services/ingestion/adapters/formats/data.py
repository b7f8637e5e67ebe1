"""JSON: an example, or data as lists, tables and sections."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from services.ingestion.adapters.formats.budget import Budget
from services.ingestion.adapters.formats.table import table
from services.ingestion.adapters.formats.text import declared, decode
from services.ingestion.domain import File, Parsed, Rejected, RejectionReason, clean, malformed

MAX_DEPTH = 32
MAX_COLUMNS = 20
LONG = 200


class Number(str):
    """A number as it was written."""

    __slots__ = ()


def parse_json(file: File, budget: Budget) -> Parsed:
    """An object of prompt and answer is an example; all else becomes Markdown, numbers as they were written."""
    try:
        text = decode(file.data, declared(file.content_type))
        content = json.loads(text, parse_int=Number, parse_float=Number, parse_constant=Number)
    except ValueError:
        raise Rejected(
            RejectionReason.CORRUPT, "The JSON cannot be read; check it with a JSON linter.", "json"
        ) from None
    except RecursionError:
        raise _too_deep() from None
    if isinstance(content, dict) and set(content) - {"kind"} == {"prompt", "answer"}:
        return _example(content)
    return Parsed(clean("\n\n".join(_counted(_blocks(content, 1, budget), budget))), "json")


def _example(content: dict[str, Any]) -> Parsed:
    if content.pop("kind", "example") != "example":
        raise malformed("What has a prompt and an answer is an example; leave its kind out.")
    if not all(type(part) is str for part in content.values()):
        raise malformed("Prompt and answer of an example are strings.")
    prompt = clean(content["prompt"]).strip()
    if not prompt:
        raise malformed("The prompt of an example is empty.")
    return Parsed(clean(content["answer"]), "json", prompt)


def _counted(blocks: Iterable[str], budget: Budget) -> Iterator[str]:
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
        yield table(rows, budget, "json")
    else:
        for number, item in enumerate(value, 1):
            if item not in ({}, []):
                yield _heading(str(number), level)
                yield from _blocks(item, level + 1, budget)


def _fields(value: dict[str, Any], level: int, budget: Budget) -> Iterator[str]:
    """Short values as a list first, then a section for each of the others."""
    short = {key: each for key, each in value.items() if _is_short(each)}
    if short:
        yield "\n".join(f"- {' '.join(key.split())}: {_scalar(each)}" for key, each in short.items())
    for key, each in value.items():
        if key not in short and each not in ({}, []):
            yield _heading(key, level)
            yield from _blocks(each, level + 1, budget)


def _columns(value: list[Any]) -> list[str] | None:
    """The columns of a list of flat objects; None where it is no table."""
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


def _heading(words: str, level: int) -> str:
    return f"{'#' * min(level, 6)} {' '.join(words.split())}"


def _too_deep() -> Rejected:
    return Rejected(
        RejectionReason.TOO_LARGE, f"The JSON nests deeper than {MAX_DEPTH} levels; publish it flatter.", "json"
    )
