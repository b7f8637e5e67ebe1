"""What synthetic needs from models and other services, and what has several implementations."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

from services.synthetic.domain import (
    CleanTexts,
    DocumentPage,
    DrawnPrompt,
    OverRedaction,
    Row,
    RowOrigin,
    Specialist,
)
from services.synthetic.synthesis_domain import Completion, Messages
from tailor.errors import DeadlineExceeded
from tailor.values import Labels, Selection

T = TypeVar("T")

# Pages of the documents that a specialist selects, by its name, and that changed since a cursor; 0 for all. Raises Unavailable while the
# registry does not answer.
ListDocuments = Callable[[str, int], Iterable[DocumentPage]]

# The texts of a row without personal values, anonymised together under the labels' rules, by the row's id (`text_id`). Blocks. Raises
# InvalidArgument if the barrier refuses them, Unavailable while it does not answer.
AnonymizeRow = Callable[[str, Sequence[str], Labels], CleanTexts]

# Raises FailedPrecondition (RESIDUAL_UNKNOWN, RESIDUAL_TOO_HIGH) if the installation limits what the barrier may leave and the selected
# documents do not meet it, Unavailable while the barrier does not answer. Blocks.
CheckResidual = Callable[[Selection], None]

# What the barrier replaced too much in documents, whose ids come in batches of at most 1,000. Not known while it does not
# answer. Blocks.
MeasureOverRedaction = Callable[[Iterable[Sequence[str]]], OverRedaction]

# The drawn prompts of a specialist that wait for experts, and the number from which on none may be drawn. Raises Unavailable while the
# registry does not answer.
CountWaiting = Callable[[str], tuple[int, int]]

# Has a specialist, by its name, answer a drawn prompt; returns the draft's id. Blocks. Raises InvalidArgument for a prompt that it cannot
# answer, FailedPrecondition (NO_ADAPTER, PROMPTS_NOT_DRAWN), Unavailable while inference does not answer.
AnswerPrompt = Callable[[str, DrawnPrompt], str]


class LostAnswer(DeadlineExceeded):
    """No answer arrived to a request that may have been billed."""


class ChatModel(Protocol):
    """A teacher or a judge behind an OpenAI-style endpoint. Thread-safe."""

    @property
    def model(self) -> str:
        """Its name."""
        ...

    def complete(
        self, messages: Messages, *, max_tokens: int, temperature: float, schema: dict[str, object]
    ) -> Completion:
        """Make one attempt to get an answer that follows the JSON schema. Blocks.

        Raises InvalidArgument if the endpoint refuses this prompt, FailedPrecondition if it refuses every prompt (key, quota, model),
        ResourceExhausted or Unavailable if it was not billed and may be asked again, and LostAnswer if it may have been billed.
        """
        ...


class SynthesisWork(Protocol):
    """The requests of a synthesis by number, and what makes their rows. `room` is the number of rows that are still wanted. Thread-safe."""

    room: int

    @property
    def exhausted(self) -> str:
        """What to say if all requests gave too few rows."""
        ...

    @property
    def numbers(self) -> Sequence[int]:
        """The requests, in order."""
        ...

    def rows(self, number: int) -> int:
        """The most rows that a request gives."""
        ...

    def make(self, number: int) -> None:
        """Ask for a request's rows and store them with their fates. Raises what `Asker.ask` raises."""
        ...


class TokenCounter(Protocol):
    """Counts tokens by one base's tokenizer. Thread-safe; can be pickled."""

    @property
    def digest(self) -> str:
        """SHA-256 of the tokenizer's file."""
        ...

    @property
    def context_tokens(self) -> int:
        """The longest sequence that the base reads."""
        ...

    def template_tokens(self, contents: Sequence[str], *, has_system: bool) -> int:
        """The tokens that the chat template adds to a conversation with these messages of user and assistant in turn, and a system prompt.

        An upper bound if the template treats messages differently by their place, and for contents that begin or end with blanks.
        """
        ...

    def count(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text, without special tokens."""
        ...

    def can_encode(self, messages: Sequence[tuple[str, str]]) -> bool:
        """True if training can encode a conversation of (role, content), as `tailor.chat.encode` does."""
        ...


class Tokenizers(Protocol):
    """The tokenizers of bases."""

    def for_base(self, base: str) -> TokenCounter:
        """The base's counter, from memory after the first call. Blocks.

        Raises FailedPrecondition (UNKNOWN_BASE) if the base was never added, Unavailable while the store does not answer.
        """
        ...


class ExtraRows(Protocol):
    """Accepted rows of a specialist that no document's structure gives: those of syntheses, of imports and of edited drafts."""

    def rows(self, specialist: Specialist, on_unreadable: Callable[[int], None] = lambda rows: None) -> Iterator[Row]:
        """Stream them, sorted by id. Calls `on_unreadable` with the number of rows that a damaged object had."""
        ...

    def fingerprint(self, specialist: Specialist) -> str:
        """Changes whenever the rows do."""
        ...

    def origin(self, specialist: Specialist) -> RowOrigin:
        """The imports and drafts that the rows may come from, and what they cost."""
        ...


class Workers(Protocol):
    """Runs functions of a context and other arguments."""

    def submit(self, function: Callable[..., T], *arguments: object) -> Callable[[], T]:
        """Start the work. The result waits for its end; raises Unavailable (BUILD_WORKER_LOST) if the worker was killed."""
        ...
