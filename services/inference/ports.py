"""The Protocols of what inference needs from outside: adapters and engines implement them, tests fake them."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from services.inference.domain import (
    AnswerPiece,
    ChatMessage,
    Draft,
    Sampling,
    Score,
    ServingReport,
    Transcript,
)
from tailor.storage.ref import Ref
from tailor.thoughts import ThoughtMarkers

# Publishes a draft. Never waits for the broker, and loses nothing while the broker is away.
PublishDraft = Callable[[Draft], None]
# Publishes whether a generation serves. Raises Unavailable while the broker is away.
PublishReport = Callable[[ServingReport], None]
# Takes the text of a draft for storage, if its specialist wants that. Returns at once.
KeepText = Callable[[Draft, Transcript], None]
# Stores an anonymised text.
StoreText = Callable[[Transcript], Ref]
# Says, within the block, that a caller waits for the model, so that training on the same machine makes way. Never blocks. Thread-safe.
AnnounceCall = Callable[[], AbstractContextManager[None]]
# Calls work until it raises no retryable error; the text names what the replica waits for.
Persist = Callable[[str, Callable[[], None]], None]


class Stream(Protocol):
    """An answer that is being generated."""

    def __iter__(self) -> Iterator[AnswerPiece]:
        """Yield the pieces; the last one has a finish reason.

        Raises Unavailable if the engine dies, FailedPrecondition if it cannot follow the schema any further.
        """
        ...

    def cancel(self) -> None:
        """End the generation; the last piece then finishes with `cancelled`. Thread-safe and idempotent."""
        ...


class InferenceEngine(Protocol):
    """A base model with slots for adapters. Thread-safe. Everywhere an empty adapter digest means the base.

    `device` is a readable name of what computes, such as `2 CPU cores` or `1 x NVIDIA H100`. `thought` has the markers of the base's
    thoughts, None if it cannot think.
    """

    context_length: int
    device: str
    thought: ThoughtMarkers | None = None

    def encode(self, messages: Sequence[ChatMessage], *, thinking: bool = False) -> tuple[int, ...]:
        """The prompt's tokens by the base's own chat template. Raises InvalidArgument if the template refuses the chat."""
        ...

    def check_schema(self, schema: str, cancelled: Callable[[], bool]) -> None:
        """Raise InvalidArgument unless the whole JSON schema can be enforced. Blocks until it was tried, or the call is cancelled.

        Raises Aborted (CANCELLED), and Unavailable (CHILD_KILLED).
        """
        ...

    def load(self, digest: str, folder: Path) -> None:
        """Load a verified adapter. May block for seconds; running streams continue. Raises FailedPrecondition if it does not load."""
        ...

    def unload(self, digest: str) -> None:
        """Free the slot of an adapter that no stream uses."""
        ...

    def generate(self, prompt: tuple[int, ...], adapter: str, sampling: Sampling) -> Stream:
        """Start an answer with a loaded adapter."""
        ...

    def score(self, messages: Sequence[ChatMessage], completion: str, adapter: str) -> Score:
        """Score a given answer. Raises InvalidArgument if it does not fit the context."""
        ...

    def score_tokens(self, tokens: tuple[int, ...], prompt_length: int, adapter: str) -> Score:
        """Score the tokens from `prompt_length` on. Raises InvalidArgument for unknown tokens and for more than fit the context."""
        ...

    def watch(self, stop: threading.Event, beat: Callable[[], None]) -> None:
        """Block until `stop` is set. Call `beat` again and again while the engine answers. Raises Unavailable if the engine dies."""
        ...

    def close(self) -> None:
        """End the engine and everything it started."""
        ...
