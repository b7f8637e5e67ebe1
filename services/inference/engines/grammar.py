"""JSON schemas as masks over the vocabulary, the same for both engines: llguidance, which vLLM's `guidance` backend uses too."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import llguidance
import llguidance.torch
import torch

from services.inference.engines.schema_trials import SchemaTrials
from services.inference.engines.schemas import invalid_schema, load_tokenizer, make_matcher
from tailor.errors import FailedPrecondition, Reason


class Grammars:
    """Compiles schemas for one tokenizer. Thread-safe."""

    def __init__(self, tokenizer: Any, folder: Path, vocabulary: int) -> None:
        self._tokenizer = load_tokenizer(tokenizer, vocabulary)
        self._trials = SchemaTrials(folder, vocabulary)

    def check(self, schema: str, cancelled: Callable[[], bool]) -> None:
        """Try a schema in a child process: what it takes there, it may take here.

        Raises InvalidArgument (INVALID_SCHEMA) unless the whole schema can be enforced, Aborted (CANCELLED) and Unavailable (CHILD_KILLED).
        """
        self._trials.check(schema, cancelled)

    def compile(self, schema: str) -> "Grammar":
        """A grammar for one answer, of a schema that was checked. Raises InvalidArgument (INVALID_SCHEMA)."""
        if self._tokenizer is None:
            raise invalid_schema("")
        return Grammar(make_matcher(self._tokenizer, schema), self._tokenizer.vocab_size)


class Grammar:
    """The state of one answer in its schema."""

    def __init__(self, matcher: llguidance.LLMatcher, vocabulary: int) -> None:
        self._matcher = matcher
        self._mask = llguidance.torch.allocate_token_bitmask(1, vocabulary)
        self._bits = torch.arange(32, dtype=torch.int32)

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


def schema_given_up() -> FailedPrecondition:
    return FailedPrecondition(
        Reason.SCHEMA_GIVEN_UP, "The engine could not follow the schema to its end. Use a simpler schema."
    )
