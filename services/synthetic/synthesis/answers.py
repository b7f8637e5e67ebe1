"""Reads models' answers: JSON of exactly the form that was asked for."""

import re
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

FENCE = re.compile(r"\A\s*```(?:json)?\s*\n(.*)\n```\s*\Z", re.DOTALL)

NonBlank = Annotated[str, Field(min_length=1, pattern=r"\S")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Row(_Strict):
    request: NonBlank
    answer: NonBlank


class _Rows(_Strict):
    rows: list[_Row] = Field(min_length=1)


class _Text(_Strict):
    text: NonBlank


class _Verdict(_Strict):
    follows: bool
    keeps_facts: bool


class _Mark(_Strict):
    mark: int = Field(ge=1, le=5)


def parse_rows(text: str) -> tuple[tuple[str, str], ...]:
    """The (request, answer) pairs; empty if the text is anything else than the requested JSON, apart from one code fence around it."""
    answer = _parse(_Rows, text)
    return tuple((row.request.strip(), row.answer.strip()) for row in answer.rows) if answer else ()


def parse_text(text: str) -> str:
    """The translation or revision; empty if it is off format."""
    answer = _parse(_Text, text)
    return answer.text.strip() if answer else ""


def parse_mark(text: str) -> int:
    """The mark, 1 to 5; 0 if it is off format."""
    answer = _parse(_Mark, text)
    return answer.mark if answer else 0


def parse_verdict(text: str) -> tuple[bool, bool] | None:
    """Whether a revision follows the comment, and keeps the facts; None if the text is off format."""
    answer = _parse(_Verdict, text)
    return (answer.follows, answer.keeps_facts) if answer else None


def _parse(form: Any, text: str) -> Any:
    fence = FENCE.match(text)
    try:
        return form.model_validate_json(fence[1] if fence else text)
    except ValidationError:
        return None
