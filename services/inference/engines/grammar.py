"""JSON schemas as masks over the vocabulary, the same for both engines: llguidance, which vLLM's `guidance` backend uses too."""

import re
from typing import Any

import llguidance
import llguidance.hf
import llguidance.torch
import torch

from tailor.errors import FailedPrecondition, InvalidArgument, Reason

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


class Grammars:
    """Compiles schemas for one tokenizer. Thread-safe."""

    def __init__(self, tokenizer: Any, vocabulary: int) -> None:
        self._tokenizer = _load_tokenizer(tokenizer, vocabulary)

    def compile(self, schema: str) -> "Grammar":
        """A grammar for one answer. Raises InvalidArgument (INVALID_SCHEMA) unless the whole schema can be enforced."""
        if self._tokenizer is None:
            raise _invalid_schema("")
        try:
            # Without free white space answers are shorter, and a weak model cannot write blanks until it is cut off.
            text = llguidance.LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_flexible": False})
        except ValueError:
            raise _invalid_schema("") from None
        matcher = llguidance.LLMatcher(self._tokenizer, text, log_level=SILENT)
        if matcher.is_error():
            raise _invalid_schema(matcher.get_error())
        grammar = Grammar(matcher, self._tokenizer.vocab_size)
        if not grammar.can_begin():
            raise _invalid_schema("")
        return grammar


class Grammar:
    """The state of one answer in its schema."""

    def __init__(self, matcher: llguidance.LLMatcher, vocabulary: int) -> None:
        self._matcher = matcher
        self._mask = llguidance.torch.allocate_token_bitmask(1, vocabulary)
        self._bits = torch.arange(32, dtype=torch.int32)

    def can_begin(self) -> bool:
        """False if no answer can begin (`{"$ref": "#"}`), or if it is too costly to find out how."""
        llguidance.torch.fill_next_token_bitmask(self._matcher, self._mask)
        return not self._matcher.is_error()

    def mask(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits (vocabulary,) with -inf for every token that must not come next. Raises FailedPrecondition (SCHEMA_GIVEN_UP)."""
        llguidance.torch.fill_next_token_bitmask(self._matcher, self._mask)
        self._raise_if_given_up()
        allowed = (self._mask[0].unsqueeze(1) >> self._bits & 1).flatten().bool()[: len(logits)]
        return logits.masked_fill(~allowed, -torch.inf)

    def advance(self, token: int) -> None:
        """Continue after a token. Raises FailedPrecondition (SCHEMA_GIVEN_UP)."""
        self._matcher.consume_token(token)
        self._raise_if_given_up()

    def _raise_if_given_up(self) -> None:
        if self._matcher.is_error():
            raise schema_given_up()


def _load_tokenizer(tokenizer: Any, vocabulary: int) -> llguidance.LLTokenizer | None:
    """The tokenizer for the library; None if it is not a fast one. Such a base serves without schemas."""
    try:
        return llguidance.hf.from_tokenizer(tokenizer, max(vocabulary, len(tokenizer)))
    except ValueError:
        return None


def schema_given_up() -> FailedPrecondition:
    return FailedPrecondition(
        Reason.SCHEMA_GIVEN_UP, "The engine could not follow the schema to its end. Use a simpler schema."
    )


def _invalid_schema(message: str) -> InvalidArgument:
    words, quoted = (set(re.findall(pattern, message)) for pattern in (r"\$?\w+", r'"(\$?\w+)"'))
    keywords = sorted((NOT_ENFORCEABLE | OFTEN_WRONG) & (words - PLAIN_WORDS | quoted))
    what = f"the schema cannot be enforced{'; check ' + ', '.join(keywords) if keywords else ''}"
    return InvalidArgument(Reason.INVALID_SCHEMA, f"json_schema: {what}.", field_violations={"json_schema": what})
