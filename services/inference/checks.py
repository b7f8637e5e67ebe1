"""What is checked of a question before anything is done with it."""

import json
from collections.abc import Sequence
from typing import Any

from services.inference.domain import ROLES, Sampling, Turn
from tailor.errors import InvalidArgument, Reason

MAX_TURNS = 64
MAX_CHARACTERS = 1_000_000
MAX_STOPS = 4
MAX_STOP_CHARACTERS = 64
MAX_TOP = 20
MAX_SCHEMA_BYTES = 16 * 1024
MAX_SCHEMA_DEPTH = 32
MAX_COUNT = 1024
COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
SCHEMA = "json_schema"
NO_TEXT = "It has half a character (a lone surrogate), which is no text."


def check_turns(turns: Sequence[Turn]) -> dict[str, str]:
    """What is wrong with a chat, by field; nothing if it can be answered."""
    if not turns:
        return {"messages": "Give a prompt or at least one message."}
    if len(turns) > MAX_TURNS:
        return {"messages": f"At most {MAX_TURNS} messages; these are {len(turns)}."}
    if sum(len(turn.content) for turn in turns) > MAX_CHARACTERS:
        return {"messages": f"At most {MAX_CHARACTERS} characters."}
    wrong = {}
    for number, turn in enumerate(turns):
        if turn.role not in ROLES:
            wrong[f"messages[{number}].role"] = f"One of {', '.join(ROLES)}."
        if turn.role == "system" and number > 0:
            wrong[f"messages[{number}].role"] = "Only the first message may be the system's."
        if not turn.content.strip():
            wrong[f"messages[{number}].content"] = "It is empty."
        elif not _is_text(turn.content):
            wrong[f"messages[{number}].content"] = NO_TEXT
    if turns[-1].role != "user":
        wrong[f"messages[{len(turns) - 1}].role"] = "The last message is the user's."
    return wrong


def check_sampling(sampling: Sampling) -> dict[str, str]:
    """What is wrong with the sampling, by field."""
    wrong = {}
    if not 0 <= sampling.temperature <= 2:
        wrong["sampling.temperature"] = "From 0 to 2."
    if not 0 < sampling.top_p <= 1:
        wrong["sampling.top_p"] = "Above 0, at most 1."
    if not 1 <= sampling.repetition_penalty <= 2:
        wrong["sampling.repetition_penalty"] = "From 1 to 2."
    if sampling.max_tokens < 1:
        wrong["sampling.max_tokens"] = "At least 1."
    if sampling.seed is not None and not 0 < sampling.seed < 2**63:
        wrong["sampling.seed"] = "A positive number."
    if len(sampling.stop) > MAX_STOPS:
        wrong["sampling.stop"] = f"At most {MAX_STOPS} texts."
    elif any(not stop or len(stop) > MAX_STOP_CHARACTERS for stop in sampling.stop):
        wrong["sampling.stop"] = f"Each from 1 to {MAX_STOP_CHARACTERS} characters."
    elif not all(map(_is_text, sampling.stop)):
        wrong["sampling.stop"] = NO_TEXT
    elif sampling.schema and sampling.stop:
        wrong["sampling.stop"] = "Not beside json_schema: it would cut the JSON."
    if not 0 <= (sampling.top_log_probabilities or 0) <= MAX_TOP:
        wrong["top_log_probabilities"] = f"From 0 to {MAX_TOP}."
    return wrong | check_schema(sampling.schema)


def check_schema(text: str) -> dict[str, str]:
    """What is wrong with a JSON schema before any library reads it; nothing for none."""
    if not text:
        return {}
    if len(text.encode()) > MAX_SCHEMA_BYTES:
        return {SCHEMA: f"At most {MAX_SCHEMA_BYTES} bytes."}
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError):
        return {SCHEMA: "It is no JSON."}
    if not isinstance(schema, dict):
        return {SCHEMA: "It must be an object."}
    if not _is_text(json.dumps(schema, ensure_ascii=False)):
        return {SCHEMA: NO_TEXT}
    return _bounds(schema, 1)


def _bounds(part: Any, depth: int) -> dict[str, str]:
    """What makes a schema too costly to enforce: depth, and counts that a grammar would spell out."""
    if depth > MAX_SCHEMA_DEPTH:
        return {SCHEMA: f"At most {MAX_SCHEMA_DEPTH} levels."}
    if isinstance(part, dict):
        if "x-guidance" in part:
            return {SCHEMA: "x-guidance is not part of JSON schema."}
        if any(type(part.get(name)) in (int, float) and part[name] > MAX_COUNT for name in COUNTS):
            return {SCHEMA: f"{', '.join(COUNTS)} are at most {MAX_COUNT}."}
    inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    return next((wrong for value in inner if (wrong := _bounds(value, depth + 1))), {})


def _is_text(text: str) -> bool:
    """False for what JSON can spell and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def refuse_if(wrong: dict[str, str], reason: Reason) -> None:
    """InvalidArgument if any field is wrong."""
    if wrong:
        raise InvalidArgument(
            reason, "; ".join(f"{name}: {what}" for name, what in wrong.items()), field_violations=wrong
        )


def fit(prompt_tokens: int, sampling: Sampling, context_length: int) -> int:
    """Tokens that may be written; InvalidArgument where the prompt leaves no room for one."""
    room = context_length - prompt_tokens
    if room < 1:
        message = f"The prompt has {prompt_tokens} tokens; prompt and answer together may have {context_length}."
        raise InvalidArgument(
            Reason.PROMPT_TOO_LONG,
            message,
            field_violations={"messages": message},
            prompt_tokens=str(prompt_tokens),
            context_length=str(context_length),
        )
    return min(sampling.max_tokens, room)
