"""JSON schemas for llguidance, which both engines use: its matcher for one answer, and why a schema cannot be enforced. Loads no torch."""

import re
from typing import Any

import llguidance
import llguidance.hf

from tailor.errors import InvalidArgument, Reason

SILENT = 0
# Keywords that an error may name. The rest of the library's message could be the caller's own words and is not repeated.
NOT_ENFORCEABLE = frozenset(
    (
        "oneOf",
        "not",
        "if",
        "then",
        "else",
        "contains",
        "propertyNames",
        "uniqueItems",
        "unevaluatedProperties",
        "$dynamicRef",
    )
)
OFTEN_WRONG = frozenset(
    ("$ref", "type", "format", "pattern", "regex", "enum", "multipleOf", "minLength", "maxLength", "minItems")
)
# These are also words of the library's sentences; as keywords they are in quotation marks.
PLAIN_WORDS = frozenset(("not", "if", "then", "else", "contains"))


def load_tokenizer(tokenizer: Any, vocabulary: int) -> llguidance.LLTokenizer | None:
    """The tokenizer for the library; None if it is not a fast one. Such a base serves without schemas."""
    try:
        return llguidance.hf.from_tokenizer(tokenizer, max(vocabulary, len(tokenizer)))
    except ValueError:
        return None


def make_matcher(tokenizer: llguidance.LLTokenizer, schema: str) -> llguidance.LLMatcher:
    """A matcher at the beginning of an answer. Raises InvalidArgument (INVALID_SCHEMA) unless the whole schema can be enforced."""
    try:
        # Without free white space answers are shorter, and a weak model cannot write blanks until it is cut off.
        text = llguidance.LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_flexible": False})
    except ValueError:
        raise invalid_schema("") from None
    matcher = llguidance.LLMatcher(tokenizer, text, log_level=SILENT)
    if matcher.is_error():
        raise invalid_schema(matcher.get_error())
    # No answer can begin with `{"$ref": "#"}`, or it is too costly to find out how.
    matcher.compute_bitmask()
    if matcher.is_error():
        raise invalid_schema("")
    return matcher


def invalid_schema(message: str) -> InvalidArgument:
    """The error for a message of the library."""
    words, quoted = (set(re.findall(pattern, message)) for pattern in (r"\$?\w+", r'"(\$?\w+)"'))
    keywords = sorted((NOT_ENFORCEABLE | OFTEN_WRONG) & (words - PLAIN_WORDS | quoted))
    what = f"the schema cannot be enforced{'; check ' + ', '.join(keywords) if keywords else ''}"
    return InvalidArgument(Reason.INVALID_SCHEMA, f"json_schema: {what}.", field_violations={"json_schema": what})
