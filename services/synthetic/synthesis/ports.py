"""Interfaces of a synthesis to the world around it. Every method of the database raises Unavailable while it does not answer."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from services.synthetic.domain import Document, Passage, Specialist, Text
from services.synthetic.synthesis.critiques import CommentCounts, CommentedDraft, MonthOfCritiques
from services.synthetic.synthesis.domain import (
    Completion,
    Lease,
    Messages,
    SampleState,
    StoredAnswer,
    Synthesis,
    SynthesisSample,
    SynthesisState,
    TokenReservation,
)
from tailor.errors import DeadlineExceeded

# The figures, names and dates of an answer that its prompt does not support; the third argument is the language.
Unsupported = Callable[[str, str, str], Sequence[str]]
# The similarity, 0 to 100, of a text and what it should be.
ScoreTranslation = Callable[[str, str], float]
SplitPassages = Callable[[Document, Text], Sequence[Passage]]


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


class SeedDocuments(Protocol):
    """Seed documents: a synthesis takes its passages from them."""

    def draw(self, specialist: Specialist, count: int, key: str) -> list[str]:
        """Ids of at most `count` selected documents that are not held out, drawn by a hash with `key`."""
        ...

    def find(self, specialist: Specialist, document_ids: Sequence[str]) -> list[Document]:
        """Those of the documents that the specialist selects and that are not erased, held-out ones included."""
        ...

    def held_out(self, specialist: Specialist, document_ids: Sequence[str]) -> set[str]:
        """Those of the documents that are held out."""
        ...

    def held_out_answers(self, specialist: Specialist) -> Iterator[str]:
        """The answers of the held-out rows of the specialist's newest dataset."""
        ...


class CommentedDrafts(Protocol):
    """Drafts that experts commented on, with texts that are stored, and what became of the comments."""

    def count(self, specialist: Specialist) -> CommentCounts:
        """Count the comments of the specialist's judgements."""
        ...

    def choose(self, specialist: Specialist, limit: int) -> list[str]:
        """Ids of judgements whose comments wait, oldest first."""
        ...

    def ages(self, specialist: Specialist) -> tuple[float, float] | None:
        """The seconds since the oldest and the newest comment that waits arrived; None if none waits."""
        ...

    def read(self, specialist: Specialist, judgement_ids: Sequence[str]) -> dict[int, CommentedDraft]:
        """The drafts with their comments, by the place of the judgement, without those that can no longer be read. Blocks."""
        ...

    def month(self, specialist: str) -> MonthOfCritiques:
        """The critiques of this calendar month (UTC)."""
        ...

    def starting(self, specialist: str) -> AbstractContextManager[bool]:
        """Hold the lock under which critiques start; yields False at once if another replica holds it."""
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


class Syntheses(Protocol):
    """Syntheses in the database, for those who ask for them and review their rows. Thread-safe."""

    def create(self, synthesis: Synthesis, request_id: str) -> Synthesis:
        """Queue a synthesis, or return that of the same request id. Raises InvalidArgument (REQUEST_ID_REUSED)."""
        ...

    def find_by_request(self, request_id: str) -> Synthesis | None:
        """The synthesis of a request id."""
        ...

    def get(self, synthesis_id: str) -> Synthesis | None: ...

    def list_newest(self, specialists: Sequence[str], limit: int, offset: int) -> list[Synthesis]:
        """The syntheses of these specialists, or of all if none is named, newest first."""
        ...

    def change(
        self,
        synthesis_id: str,
        states: Iterable[SynthesisState],
        to: SynthesisState,
        reason: str = "",
        message: str = "",
    ) -> bool:
        """Set the state if it is one of `states`; True if it was."""
        ...

    def wake(self, reasons: Iterable[str]) -> None:
        """Let the syntheses that are paused for these reasons resume at once."""
        ...

    def samples(
        self, synthesis_id: str, state: SampleState | None, limit: int, offset: int
    ) -> list[SynthesisSample]: ...

    def review(self, synthesis_id: str, decisions: dict[str, SampleState], reviewer: str) -> None:
        """Record decisions, all or none. Raises NotFound (UNKNOWN_SAMPLE), FailedPrecondition (SAMPLE_REFUSED)."""
        ...


class LeasedSyntheses(Protocol):
    """Syntheses in the database, for the replicas that run them. Thread-safe.

    Methods with a lease raise Aborted (STALE_EPOCH) once another replica holds it.
    """

    def claim(self, lease_seconds: float) -> tuple[Synthesis, Lease] | None:
        """Take the oldest synthesis that no replica runs. Its earlier reservations become lost tokens."""
        ...

    def renew(self, lease: Lease, lease_seconds: float) -> None:
        """Keep the lease."""
        ...

    def numbers(self, synthesis_id: str) -> dict[int, bool]:
        """The requests that the teacher answered, and whether their rows are stored."""
        ...

    def pause(self, lease: Lease, reason: str, message: str, seconds: float) -> None:
        """Pause, and resume by itself after `seconds`."""
        ...

    def finish(self, lease: Lease, reason: str, message: str) -> None:
        """End as succeeded."""
        ...

    def list_rows(self, specialist: str) -> Iterator[SynthesisSample]:
        """Every row of the specialist's syntheses that no check refused."""
        ...


class SynthesisAnswers(Protocol):
    """The answers and rows of leased syntheses, and what they spent. Thread-safe.

    Methods with a lease raise Aborted (STALE_EPOCH) once another replica holds it.
    """

    def reserve(self, lease: Lease, reservation: TokenReservation) -> bool:
        """Reserve tokens; False if that would pass a budget."""
        ...

    def settle(self, lease: Lease, reservation: TokenReservation, completion: Completion, answer: StoredAnswer) -> None:
        """Store an answer, and replace its reservation by what it used; without usage, by the whole reservation."""
        ...

    def release(
        self, lease: Lease, reservation: TokenReservation, *, is_lost: bool, refused: StoredAnswer | None = None
    ) -> None:
        """End a reservation without an answer; `refused` stores that the endpoint refused the prompt."""
        ...

    def answer(self, synthesis_id: str, number: int, step: str) -> StoredAnswer | None: ...

    def keep_samples(self, lease: Lease, number: int, samples: Sequence[SynthesisSample]) -> None:
        """Store the rows of a request, all at once."""
        ...


class SynthesisRuns(LeasedSyntheses, SynthesisAnswers, Protocol):
    """All that running a synthesis needs of the database. Thread-safe."""
