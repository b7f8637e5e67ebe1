"""What synthetic knows: documents, specialists, rows, datasets; and when a dataset is due."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum

from services.synthetic.spans import Passage, Span
from tailor.storage.ref import Ref

CHARS_PER_TOKEN = 4


class Kind(StrEnum):
    """What a document is."""

    DOCUMENT = "document"
    DELIVERABLE = "deliverable"
    EXAMPLE = "example"


class DatasetKind(StrEnum):
    """What a dataset's rows are."""

    SFT = "sft"
    PREFERENCE = "preference"


@dataclass(frozen=True)
class Labels:
    """Labels that the publisher gave; each may be empty."""

    source: str = ""
    department: str = ""
    confidentiality: str = ""


@dataclass(frozen=True)
class Document:
    """The newest known version of a document behind the barrier."""

    document_id: str
    sequence: int
    digest: str
    kind: Kind
    labels: Labels
    text: Ref
    draft_id: str = ""
    language: str = ""
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Selection:
    """Which documents by label; an empty set admits every value."""

    sources: frozenset[str] = frozenset()
    departments: frozenset[str] = frozenset()
    confidentialities: frozenset[str] = frozenset()

    def admits(self, labels: Labels) -> bool:
        """True if the labels are admitted."""
        pairs = (
            (self.sources, labels.source),
            (self.departments, labels.department),
            (self.confidentialities, labels.confidentiality),
        )
        return all(not admitted or value in admitted for admitted, value in pairs)


@dataclass(frozen=True)
class Filters:
    """Which of the selected documents make rows, and how much of one source. 0 and an empty set admit everything."""

    languages: frozenset[str] = frozenset()
    min_chars: int = 0
    max_chars: int = 0
    boilerplate_documents: int = 0
    max_source_documents: int = 0
    max_source_percent: int = 0
    max_pairs_per_judgement: int = 0

    def settings(self) -> dict[str, object]:
        """The fields as plain values, always in the same order."""
        return {**asdict(self), "languages": sorted(self.languages)}


@dataclass(frozen=True)
class PairCounts:
    """What became of judgements and deliverables. `unmatched` are pairs of different prompts, or without kept texts."""

    judgements: int = 0
    deliverables: int = 0
    pairs: int = 0
    unmatched: int = 0
    identical: int = 0
    tied: int = 0
    too_long: int = 0
    across_split: int = 0


@dataclass(frozen=True)
class LeftOut:
    """What the filters left out of a dataset: documents; of those that stay, parts that are boilerplate; rows over a source's share."""

    language: int = 0
    length: int = 0
    boilerplate: int = 0
    source: int = 0
    boilerplate_parts: int = 0
    source_rows: int = 0


@dataclass(frozen=True)
class Policy:
    """When a dataset is built again; `min_new_items` 0 builds only on command."""

    min_new_items: int = 0
    quiet_seconds: int = 0
    min_interval_seconds: int = 0


@dataclass(frozen=True)
class Specialist:
    """A specialist as the registry defines it."""

    name: str
    revision: int
    base: str
    recipe: str
    selection: Selection = field(default_factory=Selection)
    policy: Policy = field(default_factory=Policy)
    system_prompt: str = ""
    use_teacher: bool = False
    filters: Filters = field(default_factory=Filters)
    preference_recipe: str = ""
    keep_drafts: bool = False

    @property
    def learns_preferences(self) -> bool:
        """True where its preference datasets are built by its policy."""
        return self.keep_drafts or bool(self.preference_recipe)

    def recipe_for(self, kind: DatasetKind) -> str:
        """The recipe for datasets of a kind."""
        return self.recipe if kind is DatasetKind.SFT else self.preference_recipe


@dataclass(frozen=True)
class Judgement:
    """An expert's judgement; rankings become preference rows."""

    judgement_id: str
    specialist: str
    ranking: tuple[str, ...]
    rubric: Mapping[str, int]
    comment: str


@dataclass(frozen=True)
class KeptDraft:
    """A draft whose anonymised text is kept. `saved` says that somebody judged it or finished it, so that the text stays."""

    draft_id: str
    specialist: str
    prompt_digest: str
    adapter_digest: str
    text: Ref
    saved: bool = False


@dataclass(frozen=True)
class Spoken:
    """A draft with its kept text: the chat without the specialist's own system prompt, as (role, content), and the answer."""

    draft_id: str
    prompt_digest: str
    messages: tuple[tuple[str, str], ...]
    answer: str


@dataclass(frozen=True)
class Text:
    """What the corpus holds of a document; only examples have a prompt."""

    prompt: str | None
    text: str


@dataclass(frozen=True)
class Row:
    """One training row. `origin` says how it was made, `made_by` by what: `structure`, `human` or `teacher:MODEL`; `passage` from what,
    None for the whole document, and `spans` where in the document that stands."""

    origin: str
    document_ids: tuple[str, ...]
    prompt: str
    completion: str
    made_by: str = "structure"
    system_prompt: str = ""
    passage: Passage | None = None
    spans: tuple[Span, ...] = ()

    @property
    def row_id(self) -> str:
        """An id that the same row always has."""
        parts = [self.origin, *self.document_ids, self.system_prompt, self.prompt, self.completion, self.made_by]
        return f"row_{fingerprint(*parts)[:32]}"

    @property
    def tokens(self) -> int:
        """Estimated tokens of prompt and answer."""
        return estimate_tokens(self.system_prompt + self.prompt + self.completion)


@dataclass(frozen=True)
class RowLimits:
    """How rows are chosen. Tokens are estimated as characters by four; `max_tokens` bounds the train split."""

    max_row_tokens: int = 320
    min_answer_tokens: int = 24
    rows_per_document: int = 2
    max_tokens: int = 48_000
    held_out_percent: int = 12
    min_train_rows: int = 8
    min_held_out_rows: int = 1


@dataclass(frozen=True)
class TeacherUse:
    """What a teacher was asked for in one build: passages, those it did not answer, rows refused, tokens it took."""

    asked: int = 0
    failed: int = 0
    refused: int = 0
    tokens: int = 0


@dataclass(frozen=True)
class Split:
    """A written split: Parquet in the datasets bucket."""

    ref: Ref
    rows: int


@dataclass(frozen=True)
class Dataset:
    """A written dataset. `near_duplicates` and `left_out` are of kind sft, `judgement_ids`, `pairs` and `ranked_adapter`, whose
    drafts were ranked last, of kind preference."""

    digest: str
    specialist: str
    base: str
    recipe: str
    manifest: Ref
    train_rows: int
    held_out_rows: int
    document_ids: tuple[str, ...]
    near_duplicates: int
    created_at: datetime | None = None
    left_out: LeftOut = LeftOut()
    kind: DatasetKind = DatasetKind.SFT
    judgement_ids: tuple[str, ...] = ()
    pairs: PairCounts = PairCounts()
    ranked_adapter: str = ""


@dataclass(frozen=True)
class Built:
    """The answer to a command to build. `created` is False where the dataset existed."""

    dataset: Dataset
    created: bool


@dataclass(frozen=True)
class Progress:
    """What a specialist's next dataset of a kind depends on. Positions count documents and judgements as they came; seconds are ages, by
    the database's clock, None where there was none yet."""

    newest_position: int
    new_items: int
    seconds_since_new: float | None
    seconds_since_build: float | None
    tried_position: int


@dataclass(frozen=True)
class Snapshot:
    """The documents that a specialist selects at one moment, its judgements, those of its drafts that stay, by id, what was built last of
    the kind that is asked for, and the adapter whose drafts were ranked last."""

    documents: tuple[Document, ...]
    position: int
    fingerprint: str
    dataset: Dataset | None
    judgements: tuple[Judgement, ...] = ()
    drafts: Mapping[str, KeptDraft] = field(default_factory=dict)
    ranked_adapter: str = ""


def ranked_last(newest_first: Iterable[Judgement], drafts: Mapping[str, KeptDraft]) -> str:
    """The adapter of the draft that was ranked last, of those that are kept; empty where there is none."""
    rankings = (one.ranking for one in newest_first if len(one.ranking) > 1)
    return next((drafts[key].adapter_digest for ranking in rankings for key in ranking if key in drafts), "")


@dataclass(frozen=True)
class Assignment:
    """A document's cluster of near-duplicates, named by the document that stood for it first, and its side of the split. Never changed."""

    document_id: str
    cluster_id: str
    held_out: bool


@dataclass(frozen=True)
class Lesson:
    """What a teacher made of one passage: questions and answers, and the tokens that it took."""

    pairs: tuple[tuple[str, str], ...]
    tokens: int


def estimate_tokens(text: str) -> int:
    """Tokens of a text, about."""
    return -(-len(text) // CHARS_PER_TOKEN)


def fingerprint(*parts: object) -> str:
    """SHA-256 over the parts, hexadecimal."""
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()


def is_due(policy: Policy, progress: Progress) -> bool:
    """True if the policy asks for a build now, and something came since the last try."""
    if policy.min_new_items <= 0 or progress.new_items < policy.min_new_items:
        return False
    if progress.newest_position <= progress.tried_position or progress.seconds_since_new is None:
        return False
    rested = progress.seconds_since_build is None or progress.seconds_since_build >= policy.min_interval_seconds
    return rested and progress.seconds_since_new >= policy.quiet_seconds
