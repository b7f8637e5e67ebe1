"""Drafts that experts commented on, when their revisions start by themselves, and how a revision becomes a row."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.synthetic.domain import CRITIQUE, Conversation, Grounding, Row, Specialist
from services.synthetic.synthesis.domain import StoredAnswer, Synthesis
from tailor.rounds import is_held_out

# Names in lineages.
JUDGEMENT_ID, DRAFT_ID = "judgement_id", "draft_id"
# Comments of one synthesis.
MAX_COMMENTS = 1_000


@dataclass(frozen=True)
class CommentedDraft:
    """A draft with its text, and the comment of a judgement on it."""

    judgement_id: str
    comment: str
    draft: Conversation

    @property
    def origins(self) -> tuple[str, ...]:
        """The ids of the texts that a revision is written from."""
        return (self.judgement_id, self.draft.draft_id)

    @property
    def prompt(self) -> str:
        """Everything before the draft."""
        return "\n\n".join(content for _, content in self.draft.messages)


@dataclass(frozen=True)
class CommentCounts:
    """What became of the comments of a specialist's judgements. Each is counted once; `refusals` by reason."""

    accepted: int = 0
    pending: int = 0
    rejected: int = 0
    refusals: Mapping[str, int] = field(default_factory=dict)
    running: int = 0
    waiting: int = 0
    held_out: int = 0
    without_texts: int = 0

    @property
    def total(self) -> int:
        """All comments."""
        fates = (self.accepted, self.pending, self.rejected, self.running, self.waiting, self.held_out)
        return sum(fates) + self.without_texts + sum(self.refusals.values())


@dataclass(frozen=True)
class MonthOfCritiques:
    """The critiques of a specialist that were created in this month: the tokens that they took, or may still take.

    `left_over` is what the newest one left of its budget, if no further request fitted it; None otherwise. `newest_age` is in seconds,
    None without one.
    """

    tokens: int = 0
    left_over: int | None = None
    newest_age: float | None = None


@dataclass(frozen=True)
class CritiqueWaits:
    """When critiques start by themselves: after a quiet time, and at the latest when the oldest comment has waited.

    There is a quiet time between two of them too.

    An expert may take a judgement back for 15 minutes, and nothing is paid for a comment that may still go.
    """

    quiet_seconds: float = 900.0
    max_seconds: float = 3_600.0

    def are_over(self, oldest: float, newest: float) -> bool:
        """True if comments of these ages, in seconds, have waited long enough."""
        return newest >= self.quiet_seconds or oldest >= self.max_seconds


def tokens_left(specialist: Specialist, month: MonthOfCritiques) -> int:
    """The tokens that critiques which start by themselves may still take in this month; 0 if another request would not fit."""
    left = max(0, specialist.rows.critique_tokens_per_month - month.tokens)
    return 0 if month.left_over is not None and left <= month.left_over else left


def make_row(
    synthesis: Synthesis, specialist: Specialist, commented: CommentedDraft, answer: StoredAnswer, revision: str
) -> Row:
    """The draft's chat with its revision as the answer. Without a revision, the row has no messages.

    A system message of the caller's occurs in the place of the specialist's. The row's seed is the prompt, so that the row is on the
    prompt's side of the split.
    """
    languages, chat = specialist.filters.languages, commented.draft.messages
    system_prompt = chat[0][1] if chat[0][0] == "system" else ""
    lineage = (
        ("synthesis", synthesis.synthesis_id),
        ("prompt_version", synthesis.prompt_version),
        ("seeds", commented.draft.prompt_digest),
        ("judge", synthesis.judge or synthesis.teacher),
        (JUDGEMENT_ID, commented.judgement_id),
        (DRAFT_ID, commented.draft.draft_id),
    )
    return Row(
        task=CRITIQUE,
        document_ids=commented.draft.drawn_from,
        messages=(*chat[bool(system_prompt) :], ("assistant", revision)) if revision else (),
        made_by=f"teacher:{answer.model}",
        system_prompt=system_prompt,
        language=languages[0] if len(languages) == 1 else "",
        grounding=Grounding.NO,
        lineage=lineage,
    )


def is_held_out_prompt(row: Row, percent: int) -> bool:
    """True if the prompt of a critique is held out."""
    return is_held_out(dict(row.lineage)["seeds"], percent)
