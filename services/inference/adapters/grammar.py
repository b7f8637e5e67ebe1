"""JSON schemas as masks over the vocabulary, the same for both engines: llguidance, which vLLM's `guidance` backend is too."""

import re
from typing import Any

import llguidance
import llguidance.hf
import llguidance.torch
import torch

from tailor.errors import FailedPrecondition, InvalidArgument, Reason

SILENT = 0
# Keywords that cannot be enforced; of the library's message they alone are told on, for the rest could be the caller's own words.
REFUSED = frozenset(
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
# These are words of its sentences too; the keywords stand in quotation marks.
PLAIN_WORDS = frozenset(("not", "if", "then", "else", "contains"))
FLAWED = frozenset(
    ("$ref", "type", "format", "pattern", "regex", "enum", "multipleOf", "minLength", "maxLength", "minItems")
)


class Grammars:
    """Compiles schemas for one tokenizer. Thread-safe."""

    def __init__(self, tokenizer: Any, vocabulary: int) -> None:
        self._tokenizer = _readable(tokenizer, vocabulary)

    def compile(self, schema: str) -> "Grammar":
        """A schema, ready for one answer; InvalidArgument where it cannot be enforced whole."""
        if self._tokenizer is None:
            raise _refused("")
        try:
            # Without free white space an answer is shorter, and a weak model cannot write blanks until it is cut.
            text = llguidance.LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_flexible": False})
        except ValueError:
            raise _refused("") from None
        matcher = llguidance.LLMatcher(self._tokenizer, text, log_level=SILENT)
        if matcher.is_error():
            raise _refused(matcher.get_error())
        grammar = Grammar(matcher, self._tokenizer.vocab_size)
        if not grammar.begins():
            raise _refused("")
        return grammar


class Grammar:
    """Where one answer stands in its schema."""

    def __init__(self, matcher: llguidance.LLMatcher, vocabulary: int) -> None:
        self._matcher = matcher
        self._mask = llguidance.torch.allocate_token_bitmask(1, vocabulary)
        self._bits = torch.arange(32, dtype=torch.int32)

    def begins(self) -> bool:
        """False where no answer can begin (`{"$ref": "#"}`), or it is too costly to find out how."""
        llguidance.torch.fill_next_token_bitmask(self._matcher, self._mask)
        return not self._matcher.is_error()

    def masked(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits (vocabulary,) with only those tokens left that may come next; FailedPrecondition where the schema is given up."""
        llguidance.torch.fill_next_token_bitmask(self._matcher, self._mask)
        self._refuse_if_lost()
        allowed = (self._mask[0].unsqueeze(1) >> self._bits & 1).flatten().bool()[: len(logits)]
        return logits.masked_fill(~allowed, -torch.inf)

    def take(self, token: int) -> None:
        """Go on behind a token."""
        self._matcher.consume_token(token)
        self._refuse_if_lost()

    def _refuse_if_lost(self) -> None:
        if self._matcher.is_error():
            raise schema_given_up()


def _readable(tokenizer: Any, vocabulary: int) -> llguidance.LLTokenizer | None:
    """The tokenizer as the library reads it; None for a base whose tokenizer is not a fast one, which serves without schemas."""
    try:
        return llguidance.hf.from_tokenizer(tokenizer, max(vocabulary, len(tokenizer)))
    except ValueError:
        return None


def schema_given_up() -> FailedPrecondition:
    """The error of an answer that could not be kept to its schema."""
    return FailedPrecondition(Reason.SCHEMA_GIVEN_UP, "The engine could not keep to the schema; ask for a simpler one.")


def _refused(message: str) -> InvalidArgument:
    words, quoted = (set(re.findall(pattern, message)) for pattern in (r"\$?\w+", r'"(\$?\w+)"'))
    named = sorted((REFUSED | FLAWED) & (words - PLAIN_WORDS | quoted))
    what = f"It cannot be enforced{': see ' + ', '.join(named) if named else ''}."
    return InvalidArgument(Reason.INVALID_SCHEMA, f"json_schema: {what}", field_violations={"json_schema": what})
