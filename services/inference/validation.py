"""Checks of a request before any resource is used for it. Each check returns what is wrong, by field."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from services.inference.domain import MAX_ROWS, ROLES, ChatMessage, RowToScore, Sampling
from tailor.errors import InvalidArgument, Reason

MAX_MESSAGES = 64
MAX_CHARACTERS = 1_000_000
MAX_REQUEST_ID = 128
MAX_STOPS = 4
MAX_EDITED_TEXT = 100_000
MAX_STOP_CHARACTERS = 64
MAX_TOP = 20
MAX_SCHEMA_BYTES = 16 * 1024
MAX_SCHEMA_DEPTH = 32
MAX_COUNT = 1024
# A counted repeat in a pattern: `{3}`, `{3,}`, `{3,5}`.
REPEAT = re.compile(r"\{\d+(?:,\d*)?\}")
COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
SCHEMA = "json_schema"
NOT_UNICODE = "contains an unpaired surrogate and is not valid Unicode"


def check_messages(messages: Sequence[ChatMessage]) -> dict[str, str]:
    """Check a chat that is to be answered."""
    if not messages:
        return {"messages": "must have at least one message, unless a prompt is given"}
    if len(messages) > MAX_MESSAGES:
        return {"messages": f"must have at most {MAX_MESSAGES} messages, not {len(messages)}"}
    if sum(len(message.content) for message in messages) > MAX_CHARACTERS:
        return {"messages": f"must have at most {MAX_CHARACTERS} characters"}
    wrong = {}
    for number, message in enumerate(messages):
        if message.role not in ROLES:
            wrong[f"messages[{number}].role"] = f"must be one of {', '.join(ROLES)}"
        if message.role == "system" and number > 0:
            wrong[f"messages[{number}].role"] = "only the first message may have the role `system`"
        if not message.content.strip():
            wrong[f"messages[{number}].content"] = "must not be empty"
        elif not _is_unicode(message.content):
            wrong[f"messages[{number}].content"] = NOT_UNICODE
    if messages[-1].role != "user":
        wrong[f"messages[{len(messages) - 1}].role"] = "the last message must have the role `user`"
    return wrong


def check_request_id(request_id: str) -> dict[str, str]:
    """Check the id that makes a repeated call the same call."""
    return {"request_id": f"must have at most {MAX_REQUEST_ID} characters"} if len(request_id) > MAX_REQUEST_ID else {}


def check_sampling(sampling: Sampling) -> dict[str, str]:
    """Check sampling, its schema included."""
    wrong = {}
    if not 0 <= sampling.temperature <= 2:
        wrong["sampling.temperature"] = "must be from 0 to 2"
    if not 0 < sampling.top_p <= 1:
        wrong["sampling.top_p"] = "must be above 0 and at most 1"
    if not 1 <= sampling.repetition_penalty <= 2:
        wrong["sampling.repetition_penalty"] = "must be from 1 to 2"
    if sampling.max_tokens < 0:
        wrong["sampling.max_tokens"] = "must be at least 1, or absent for the specialist's default"
    if sampling.seed is not None and not 0 < sampling.seed < 2**63:
        wrong["sampling.seed"] = "must be a positive number"
    if len(sampling.stop) > MAX_STOPS:
        wrong["sampling.stop"] = f"must have at most {MAX_STOPS} texts, not {len(sampling.stop)}"
    elif any(not stop or len(stop) > MAX_STOP_CHARACTERS for stop in sampling.stop):
        wrong["sampling.stop"] = f"each text must have 1 to {MAX_STOP_CHARACTERS} characters"
    elif not all(map(_is_unicode, sampling.stop)):
        wrong["sampling.stop"] = NOT_UNICODE
    elif sampling.schema and sampling.stop:
        wrong["sampling.stop"] = "cannot be combined with a JSON schema, because a stop text would cut the JSON"
    if not 0 <= (sampling.top_log_probabilities or 0) <= MAX_TOP:
        wrong["top_log_probabilities"] = f"must be from 0 to {MAX_TOP}"
    return wrong | check_schema(sampling.schema)


def check_schema(text: str) -> dict[str, str]:
    """Check a JSON schema's size and depth before any library reads it; an empty text means no schema."""
    if not text:
        return {}
    if len(text.encode()) > MAX_SCHEMA_BYTES:
        return {SCHEMA: f"must have at most {MAX_SCHEMA_BYTES} bytes"}
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError):
        return {SCHEMA: "must be JSON"}
    if not isinstance(schema, dict):
        return {SCHEMA: "must be a JSON object"}
    if not _is_unicode(json.dumps(schema, ensure_ascii=False)):
        return {SCHEMA: NOT_UNICODE}
    return _check_bounds(schema, 1)


def check_edit(text: str) -> dict[str, str]:
    """Check an answer that an expert edited."""
    if not text.strip():
        return {"text": "must not be empty"}
    if len(text) > MAX_EDITED_TEXT:
        return {"text": f"must have at most {MAX_EDITED_TEXT:,} characters"}
    return {} if _is_unicode(text) else {"text": NOT_UNICODE}


def check_rows(rows: Sequence[RowToScore]) -> dict[str, str]:
    """Check rows that are to be scored."""
    if not 1 <= len(rows) <= MAX_ROWS:
        return {"rows": f"must have 1 to {MAX_ROWS} rows, not {len(rows)}"}
    wrong = {
        f"rows[{n}].{name}": what for n, row in enumerate(rows) for name, what in check_messages(row.messages).items()
    }
    return wrong | {
        f"rows[{n}].completion": "must not be empty" for n, row in enumerate(rows) if not row.completion.strip()
    }


def raise_if_invalid(wrong: dict[str, str]) -> None:
    """Raise InvalidArgument (INVALID_REQUEST) if any field is wrong."""
    if wrong:
        message = "; ".join(f"{name}: {what}" for name, what in wrong.items())
        raise InvalidArgument(Reason.INVALID_REQUEST, f"{message}.", field_violations=wrong)


def fit_max_tokens(prompt_tokens: int, sampling: Sampling, context_length: int) -> int:
    """The number of tokens that may be written. Raises InvalidArgument (PROMPT_TOO_LONG) if there is no room for one."""
    room = context_length - prompt_tokens
    if room < 1:
        message = (
            f"The prompt has {prompt_tokens} tokens; prompt and answer together may have {context_length}. "
            "Shorten the messages."
        )
        raise InvalidArgument(
            Reason.PROMPT_TOO_LONG,
            message,
            field_violations={"messages": message},
            prompt_tokens=str(prompt_tokens),
            context_length=str(context_length),
        )
    return min(sampling.max_tokens or room, room)


def _check_bounds(part: Any, depth: int) -> dict[str, str]:
    """Refuse what makes a schema too costly to enforce: depth, and counts that a grammar would spell out."""
    if depth > MAX_SCHEMA_DEPTH:
        return {SCHEMA: f"must have at most {MAX_SCHEMA_DEPTH} levels"}
    if isinstance(part, dict):
        if "x-guidance" in part:
            return {SCHEMA: "must not contain x-guidance, which is not part of JSON schema"}
        if any(type(part.get(name)) in (int, float) and part[name] > MAX_COUNT for name in COUNTS):
            return {SCHEMA: f"{', '.join(COUNTS)} must be at most {MAX_COUNT}"}
        if sum(1 for _ in _combined_patterns(part)) > 1:
            return {SCHEMA: "allOf must not combine patterns; write one pattern"}
        if isinstance(pattern := part.get("pattern"), str) and _nests_repeats(pattern):
            return {SCHEMA: "a pattern must not repeat a counted repeat by another count"}
    inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    return next((wrong for value in inner if (wrong := _check_bounds(value, depth + 1))), {})


def _combined_patterns(part: dict[str, Any]) -> Iterator[str]:
    """The patterns that one string has to match: its own and those in `allOf`."""
    if isinstance(pattern := part.get("pattern"), str):
        yield pattern
    branches = part.get("allOf")
    for branch in branches if isinstance(branches, list) else ():
        if isinstance(branch, dict):
            yield from _combined_patterns(branch)


def _nests_repeats(pattern: str) -> bool:
    """True if a counted repeat is in a group that is repeated by a count, such as `(a{9}b){9}`."""
    has_repeat, in_class, place = [False], False, 0
    while place < len(pattern):
        character = pattern[place]
        if character == "\\":
            place += 1
        elif in_class:
            in_class = character != "]"
        elif character == "[":
            in_class = True
        elif character == "(":
            has_repeat.append(False)
        elif character == ")" and len(has_repeat) > 1:
            inner = has_repeat.pop()
            if inner and REPEAT.match(pattern, place + 1):
                return True
            has_repeat[-1] |= inner
        elif REPEAT.match(pattern, place):
            has_repeat[-1] = True
        place += 1
    return False


def _is_unicode(text: str) -> bool:
    """False for text that JSON can spell but UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
