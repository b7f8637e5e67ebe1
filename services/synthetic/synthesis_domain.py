"""A synthesis: what it makes, from what, for how much, and what became of every row."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from services.synthetic.domain import Conversation, Row

MILLION = 1_000_000
DEFAULT_SEEDS = 5
DEFAULT_ANSWER_TOKENS = 1200
DEFAULT_TEMPERATURE = 0.8
DEFAULT_BACK_TRANSLATION = 40.0
# Upper bounds of what a chat template adds: byte-level tokenizers never need more tokens than a text has bytes.
TOKENS_PER_MESSAGE = 16
TOKENS_PER_REQUEST = 64

# The step of a request in which the teacher writes, and names in lineages.
TEACH = "teach"
JUDGEMENT_ID, DRAFT_ID = "judgement_id", "draft_id"

Messages = tuple[tuple[str, str], ...]


class SynthesisState(StrEnum):
    """Where a synthesis is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    CANCELLED = "cancelled"

    @property
    def has_ended(self) -> bool:
        return self in (SynthesisState.SUCCEEDED, SynthesisState.CANCELLED)


OPEN_STATES = tuple(state for state in SynthesisState if not state.has_ended)


class SampleState(StrEnum):
    """Whether a row joins datasets."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    REFUSED = "refused"


class Refusal(StrEnum):
    """Why a check refused a row; `off_format` and `teacher_refused` concern a whole request."""

    OFF_FORMAT = "off_format"
    TEACHER_REFUSED = "teacher_refused"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    UNFAITHFUL = "unfaithful"
    NEAR_DUPLICATE_OF_SEED = "near_duplicate_of_seed"
    NEAR_DUPLICATE_OF_HELD_OUT = "near_duplicate_of_held_out"
    NEAR_DUPLICATE = "near_duplicate"
    LOW_BACK_TRANSLATION = "low_back_translation"
    LOW_MARK = "low_mark"
    NOT_JUDGED = "not_judged"
    UNCHANGED = "unchanged"
    LOST_FACTS = "lost_facts"
    COMMENT_NOT_MET = "comment_not_met"
    CHANGED_FACTS = "changed_facts"


class ModelRole(StrEnum):
    """The part that a model plays."""

    TEACHER = "teacher"
    JUDGE = "judge"


@dataclass(frozen=True)
class TokenCount:
    """Tokens of prompts and of answers."""

    prompt: int = 0
    completion: int = 0

    @property
    def total(self) -> int:
        return self.prompt + self.completion

    def __add__(self, other: "TokenCount") -> "TokenCount":
        return TokenCount(self.prompt + other.prompt, self.completion + other.completion)

    def __sub__(self, other: "TokenCount") -> "TokenCount":
        return TokenCount(self.prompt - other.prompt, self.completion - other.completion)


@dataclass(frozen=True)
class TokenPrice:
    """EUR per million tokens of prompts and of answers."""

    input: float
    output: float

    def cost(self, tokens: TokenCount) -> Decimal:
        """EUR for the tokens, exact."""
        prompt, completion = Decimal(str(self.input)), Decimal(str(self.output))
        return (prompt * tokens.prompt + completion * tokens.completion) / MILLION


@dataclass(frozen=True)
class ModelUse:
    """One model's tokens: reported by it, reserved for running requests, and the worst case of answers that were lost."""

    used: TokenCount = TokenCount()
    reserved: TokenCount = TokenCount()
    lost: TokenCount = TokenCount()

    @property
    def spent(self) -> TokenCount:
        """Tokens that may have been billed."""
        return self.used + self.lost


@dataclass(frozen=True)
class SynthesisUse:
    """The tokens and answers of a synthesis, by model."""

    teacher: ModelUse = ModelUse()
    judge: ModelUse = ModelUse()
    answers: int = 0

    def of(self, role: ModelRole) -> ModelUse:
        return self.teacher if role is ModelRole.TEACHER else self.judge

    def with_role(self, role: ModelRole, use: ModelUse) -> "SynthesisUse":
        return replace(self, teacher=use) if role is ModelRole.TEACHER else replace(self, judge=use)


@dataclass(frozen=True)
class SeedExample:
    """An example written by a person, anonymised, with its id for erasures if it contains surrogates. Empty once it is erased."""

    prompt: str
    answer: str
    document_id: str = ""


@dataclass(frozen=True)
class GridAttribute:
    """One dimension of the grid."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class SynthesisSpec:
    """What to make. Empty and 0 mean no limit, or the default; with a `budget_eur` both prices of the models in use are set.

    `judgement_ids` are those whose comments a critique answers.
    """

    specialist: str
    task: str
    target: int
    document_ids: tuple[str, ...] = ()
    seeds: int = 0
    examples: tuple[SeedExample, ...] = ()
    instruction: str = ""
    attributes: tuple[GridAttribute, ...] = ()
    personas: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    budget_tokens: int = 0
    budget_eur: float = 0.0
    teacher_price: TokenPrice | None = None
    judge_price: TokenPrice | None = None
    min_mark: int = 0
    min_back_translation: float = DEFAULT_BACK_TRANSLATION
    needs_review: bool = False
    max_answer_tokens: int = DEFAULT_ANSWER_TOKENS
    temperature: float = DEFAULT_TEMPERATURE
    judgement_ids: tuple[str, ...] = ()

    def price(self, role: ModelRole) -> TokenPrice | None:
        return self.teacher_price if role is ModelRole.TEACHER else self.judge_price

    def cost(self, use: SynthesisUse, *, reserved: bool = False) -> Decimal | None:
        """EUR that may have been billed, with the reservations if asked for; None if a price is missing."""
        total = Decimal(0)
        for role in ModelRole:
            model = use.of(role)
            tokens = model.spent + model.reserved if reserved else model.spent
            price = self.price(role)
            if price is None and tokens.total:
                return None
            total += price.cost(tokens) if price else Decimal(0)
        return None if self.teacher_price is None else total

    def allows(self, use: SynthesisUse) -> bool:
        """True if spent and reserved tokens stay within both budgets."""
        tokens = sum((use.of(role).spent + use.of(role).reserved).total for role in ModelRole)
        if self.budget_tokens and tokens > self.budget_tokens:
            return False
        if not self.budget_eur:
            return True
        cost = self.cost(use, reserved=True)
        return cost is not None and cost <= Decimal(str(self.budget_eur))


@dataclass(frozen=True)
class Synthesis:
    """One job. `refusals` counts refused rows by reason."""

    synthesis_id: str
    spec: SynthesisSpec
    teacher: str
    judge: str = ""
    prompt_version: str = ""
    state: SynthesisState = SynthesisState.QUEUED
    reason: str = ""
    message: str = ""
    use: SynthesisUse = SynthesisUse()
    samples: Mapping[SampleState, int] = field(default_factory=dict)
    refusals: Mapping[str, int] = field(default_factory=dict)
    created_at: datetime | None = None
    resume_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True)
class TokenReservation:
    """Tokens set aside for one attempt, the worst case."""

    role: ModelRole
    tokens: TokenCount


@dataclass(frozen=True)
class Completion:
    """A model's answer. `tokens` is None if the endpoint reports no usage."""

    text: str
    tokens: TokenCount | None
    finish_reason: str = "stop"


@dataclass(frozen=True)
class StoredAnswer:
    """An answer as it is stored before use: one step of one request. `is_refused` means that the endpoint refused the prompt."""

    number: int
    step: str
    model: str
    text: str = ""
    finish_reason: str = "stop"
    is_refused: bool = False
    document_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class SynthesisSample:
    """A row of a synthesis with its fate. Its row has no messages if the answer could not be read."""

    row_id: str
    row: Row
    state: SampleState
    number: int = 0
    reason: str = ""
    mark: int = 0
    back_translation: float | None = None
    reviewer: str = ""
    reviewed_at: datetime | None = None


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


def worst_case(messages: Messages, max_tokens: int) -> TokenCount:
    """The most tokens that a request can take."""
    prompt = sum(len(content.encode()) + TOKENS_PER_MESSAGE for _, content in messages)
    return TokenCount(prompt + TOKENS_PER_REQUEST, max_tokens)
