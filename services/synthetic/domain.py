"""Documents, specialists, rows and datasets, and the rule for when a dataset is due."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from json.encoder import encode_basestring_ascii

from tailor.chat import clean_message
from tailor.datasets import Figures, ImportCount, SkippedCount
from tailor.errors import NotFound, Reason
from tailor.pipelines import Pipeline, learns_from_rankings, resolve_pipeline
from tailor.storage.ref import Ref
from tailor.values import DatasetKind, Filters, Labels, RowPolicy, Selection, Span

TEXT = "txt_"
# The task of rows and pairs in which a teacher revised a draft by an expert's comment.
CRITIQUE = "critique"
DRAFT = "drf_"


class Kind(StrEnum):
    """Kinds of documents."""

    DOCUMENT = "document"
    DELIVERABLE = "deliverable"
    EXAMPLE = "example"
    TEST = "test"

    @property
    def is_pair(self) -> bool:
        """True if a person wrote a prompt and its answer, word for word."""
        return self in (Kind.EXAMPLE, Kind.TEST)


@dataclass(frozen=True)
class Document:
    """The newest known version of an anonymised document."""

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
class SupersededVersion:
    """A document of which the versions before `sequence` are superseded, and the segment that they were in, if they were prepared."""

    document_id: str
    erasure_id: str
    sequence: int
    segment: int | None


@dataclass(frozen=True)
class DocumentPage:
    """Documents from the registry. What changes after the listing began is listed since `cursor`."""

    documents: tuple[Document, ...]
    cursor: int = 0


@dataclass(frozen=True)
class SyncCursor:
    """The revision of a specialist for which the registry's documents were read, 0 for none, and the cursor of what changes after."""

    revision: int = 0
    cursor: int = 0


@dataclass(frozen=True)
class PairCounts:
    """Outcomes of judgements, deliverables and revisions (`critiques`).

    `unmatched` pairs have different prompts, or no stored texts. The base's chat template cannot hold `unfit` ones.
    """

    judgements: int = 0
    deliverables: int = 0
    pairs: int = 0
    unmatched: int = 0
    identical: int = 0
    tied: int = 0
    too_long: int = 0
    unfit: int = 0
    across_split: int = 0
    critiques: int = 0


@dataclass(frozen=True)
class BuildPolicy:
    """When a dataset is rebuilt. With `min_new_items` 0 it is built on command only.

    `min_ranked_prompts` is what a round needs; 0 means as many as are expected to hold out enough.
    """

    min_new_items: int = 0
    quiet_seconds: int = 0
    min_interval_seconds: int = 0
    min_ranked_prompts: int = 0


@dataclass(frozen=True)
class Specialist:
    """A specialist as the registry defines it. `recipe` is that of the stage `sft`, `recipes` are those of other stages.

    `guidelines` are those of the house, which its evaluation has.
    """

    name: str
    revision: int
    base: str
    recipe: str
    selection: Selection = field(default_factory=Selection)
    policy: BuildPolicy = field(default_factory=BuildPolicy)
    system_prompt: str = ""
    use_teacher: bool = False
    filters: Filters = field(default_factory=Filters)
    rows: RowPolicy = field(default_factory=RowPolicy)
    stages: tuple[str, ...] = ()
    recipes: Mapping[str, str] = field(default_factory=dict)
    keep_drafts: bool = False
    guidelines: str = ""
    draw_prompts: bool = True

    @property
    def pipeline(self) -> Pipeline:
        """Its stages with their recipes."""
        return resolve_pipeline(self.stages, self.recipe, self.recipes)

    @property
    def learns_preferences(self) -> bool:
        """True if its policy builds preference datasets too."""
        return self.keep_drafts or learns_from_rankings(self.pipeline)


def find_specialist(specialists: Mapping[str, Specialist], name: str) -> Specialist:
    """Raises NotFound (UNKNOWN_SPECIALIST)."""
    if name not in specialists:
        raise unknown_specialist()
    return specialists[name]


def unknown_specialist() -> NotFound:
    """The same for a specialist that does not exist and for one that the caller may not use."""
    return NotFound(Reason.UNKNOWN_SPECIALIST, "This specialist does not exist, or your key may not use it.")


class OriginKind(StrEnum):
    """Of an origin: a source of documents and deliverables, or who publishes examples or golden documents."""

    SOURCE = "source"
    EXAMPLES = "examples"
    TESTS = "tests"


@dataclass(frozen=True)
class Origin:
    """Where selected documents come from: a source, or a publisher of examples or golden documents.

    `publishers` are those of its documents. `admitted_at` is None while it waits; `admitted_by` is empty for what was there before the
    first dataset.
    """

    kind: OriginKind
    name: str
    documents: int
    publishers: tuple[str, ...]
    admitted_at: datetime | None
    admitted_by: str


@dataclass(frozen=True)
class Judgement:
    """An expert's judgement; rankings become preference rows. `equal_drafts` are those of which none is better, without a ranking.

    `places` are those of the ranked drafts, which equally good ones share; empty if no two are.
    """

    judgement_id: str
    specialist: str
    ranking: tuple[str, ...]
    rubric: Mapping[str, int]
    comment: str
    equal_drafts: tuple[str, ...] = ()
    places: tuple[int, ...] = ()

    @property
    def drafts(self) -> tuple[str, ...]:
        """Every draft that was judged. A comment is about the first one: the better one, if one is."""
        return self.ranking or self.equal_drafts


@dataclass(frozen=True)
class KeptDraft:
    """A draft whose anonymised text is stored. `saved` means that it was judged or finished, so its text does not expire.

    `edit_of` is the draft that an expert edited into this one. `drawn_from` are the documents of the row whose prompt was drawn.
    """

    draft_id: str
    specialist: str
    prompt_digest: str
    adapter_digest: str
    text: Ref
    saved: bool = False
    edit_of: str = ""
    drawn_from: tuple[str, ...] = ()

    @property
    def text_id(self) -> str:
        """The id by which an edited draft is erased; empty for one that a model wrote."""
        return draft_text_id(self.draft_id) if self.edit_of else ""


@dataclass(frozen=True)
class RankedEdit:
    """An edited draft, and the judgement that ranks it first, before what was edited."""

    draft: KeptDraft
    judgement_id: str


@dataclass(frozen=True)
class Conversation:
    """A draft with its text: the chat as (role, content), without the specialist's own system prompt, and the answer.

    `edit_of` is the draft that an expert edited into this one. `drawn_from` are the documents of the row whose prompt was drawn.
    """

    draft_id: str
    prompt_digest: str
    messages: tuple[tuple[str, str], ...]
    answer: str
    edit_of: str = ""
    drawn_from: tuple[str, ...] = ()


@dataclass(frozen=True)
class DrawnPrompt:
    """The prompt of a train row: its digest, and the chat as (role, content) without the answer and the specialist's own system prompt."""

    digest: str
    task: str
    document_ids: tuple[str, ...]
    messages: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Revision:
    """A draft as a teacher revised it by the comment of a judgement, accepted by all checks."""

    judgement_id: str
    draft_id: str
    text: str
    made_by: str


@dataclass(frozen=True)
class Text:
    """A document's text in the corpus; only examples and golden documents have a prompt. `key_insights` is JSON, or empty."""

    prompt: str | None
    text: str
    key_insights: str = ""


@dataclass(frozen=True)
class CleanTexts:
    """The texts of a row that passed the barrier, and the number of surrogates in them that anonymization recorded."""

    texts: tuple[str, ...]
    surrogates: int


Range = tuple[int, int]


class Grounding(StrEnum):
    """Whether the prompt supports the figures, names and dates of the answer."""

    YES = "yes"
    NO = "no"
    PEOPLE = "people"
    CLOSED = "closed"


@dataclass(frozen=True)
class Passage:
    """A part of a document: the range [start, end) of its text, in Unicode code points, under its headings, outermost first."""

    start: int
    end: int
    text: str
    headings: tuple[str, ...] = ()

    @property
    def heading(self) -> str:
        """The innermost heading; empty if there is none."""
        return self.headings[-1] if self.headings else ""


@dataclass(frozen=True)
class Row:
    """One training row.

    `messages` are (role, content) without the system prompt and without white space around a content; users and assistant alternate, and
    the assistant has the last word.
    `made_by` is `structure`, `human`, `teacher:MODEL` or `import:NAME`. `tokens` counts the whole row by the base's tokenizer. `places` are
    the ranges of the document that the answers teach, and `spans` the parts of the file that hold them. `lineage` names a synthesis, the
    version of its prompt, its seeds and its judge model. Rows of golden documents may have `key_insights`, as JSON.
    `document_ids` may have ids of texts that come from no document (`text_id`), so
    that an erasure finds the row.
    """

    task: str
    document_ids: tuple[str, ...]
    messages: tuple[tuple[str, str], ...]
    made_by: str = "structure"
    system_prompt: str = ""
    language: str = ""
    tokens: int = 0
    grounding: Grounding = Grounding.YES
    places: tuple[Range, ...] = ()
    spans: tuple[Span, ...] = ()
    lineage: tuple[tuple[str, str], ...] = ()
    key_insights: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "messages", clean_messages(self.messages))

    @property
    def chat(self) -> tuple[tuple[str, str], ...]:
        """The messages, with the system prompt before them if there is one."""
        return ((("system", self.system_prompt),) if self.system_prompt else ()) + self.messages

    @property
    def row_id(self) -> str:
        """An id by content: equal rows have equal ids."""
        insights = [self.key_insights] if self.key_insights else []
        parts = [self.task, *self.document_ids, self.system_prompt, self.messages, self.made_by, *insights]
        return f"row_{fingerprint(*parts)[:32]}"

    @property
    def prompt(self) -> str:
        """Everything before the last answer."""
        return "\n\n".join(content for _, content in self.messages[:-1])

    @property
    def completion(self) -> str:
        """The last answer."""
        return self.messages[-1][1]

    @property
    def answers(self) -> tuple[str, ...]:
        """Everything that the assistant says."""
        return tuple(content for role, content in self.messages if role == "assistant")


def clean_messages(messages: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """The messages (role, content) without white space around a content."""
    return tuple((role, clean_message(content)) for role, content in messages)


@dataclass(frozen=True)
class RowOrigin:
    """Where extra rows come from: imports, without their rows in a dataset, the teacher tokens that syntheses spent, and the adapters whose
    drafts were revised or edited.
    """

    imports: tuple[ImportCount, ...] = ()
    teacher_tokens: int = 0
    draft_adapters: frozenset[str] = frozenset()


@dataclass(frozen=True)
class SkippedText:
    """Text of a document that no row teaches: the reason, the rows refused, if any, and the characters."""

    reason: str
    rows: int = 0
    characters: int = 0


@dataclass(frozen=True)
class DocumentRows:
    """The rows of one document, and what it has that they do not teach."""

    rows: tuple[Row, ...]
    skipped: tuple[SkippedText, ...] = ()


@dataclass(frozen=True)
class PairRow:
    """One preference row: the chat as (role, content), the better answer and the worse one, and the tokens with the longer one.

    `drawn_from` are those of its documents from which the prompt was drawn.
    """

    task: str
    prompt_digest: str
    messages: tuple[tuple[str, str], ...]
    chosen: str
    rejected: str
    document_ids: tuple[str, ...] = ()
    judgement_ids: tuple[str, ...] = ()
    made_by: str = "human"
    tokens: int = 0
    drawn_from: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "messages", clean_messages(self.messages))
        object.__setattr__(self, "chosen", clean_message(self.chosen))
        object.__setattr__(self, "rejected", clean_message(self.rejected))

    @property
    def chats(self) -> Iterator[tuple[tuple[str, str], ...]]:
        """The conversation with each answer."""
        return ((*self.messages, ("assistant", answer)) for answer in (self.chosen, self.rejected))

    @property
    def row_id(self) -> str:
        """An id by content, independent of the number of judgements behind it."""
        return f"row_{fingerprint(self.task, *self.document_ids, self.messages, self.chosen, self.rejected)[:32]}"


@dataclass(frozen=True)
class BuildLimits:
    """The fewest rows with which a dataset is worth training on."""

    min_train_rows: int = 8
    min_held_out_rows: int = 1


@dataclass(frozen=True)
class OverRedaction:
    """Replacements of strings that are hardly personal, per 1,000 words of some documents, and the limit above which that is too many.

    Without a limit, it is not known.
    """

    per_thousand_words: float = 0.0
    limit: float = 0.0


@dataclass(frozen=True)
class SupersedeWaits:
    """When the datasets of superseded versions are built again: after a quiet time, and at the latest when the oldest version has waited.

    Each dataset starts a run, so a replay of thousands of documents must not give one per document. Fifteen quiet seconds are
    longer than the pause between two documents of a replay at its default pace; after half an hour, what would be masked now
    leaves the datasets even while a replay goes on for a day.
    """

    quiet_seconds: float = 15.0
    max_seconds: float = 1_800.0


@dataclass(frozen=True)
class Dataset:
    """A stored dataset.

    `near_duplicates`, `figures` and `intake_seconds` belong to kind sft; `judgements` and `pairs` to kind preference.
    `draft_adapters` are the adapters of the drafts behind its pairs, or revised or edited for its rows. `intake_seconds` is the time that
    preparing the documents took when they arrived.
    """

    digest: str
    specialist: str
    base: str
    pipeline: Pipeline
    manifest: Ref
    train_rows: int
    held_out_rows: int
    documents: int
    near_duplicates: int
    created_at: datetime | None = None
    figures: Figures = field(default_factory=Figures)
    skipped: Mapping[str, SkippedCount] = field(default_factory=dict)
    intake_seconds: float = 0.0
    kind: DatasetKind = DatasetKind.SFT
    judgements: int = 0
    pairs: PairCounts = PairCounts()
    draft_adapters: tuple[str, ...] = ()


@dataclass(frozen=True)
class BuildResult:
    """The result of a build. `created` is False if the dataset existed already."""

    dataset: Dataset
    created: bool


@dataclass(frozen=True)
class BuildProgress:
    """The figures that decide whether a specialist's next dataset of a kind is due.

    Positions count documents and judgements in the order of arrival. Ages are in seconds by the database's clock, None if there was no item
    or build yet.
    """

    newest_position: int
    new_items: int
    seconds_since_new: float | None
    seconds_since_build: float | None
    tried_position: int


@dataclass(frozen=True)
class LastBuild:
    """The last build of a kind, and the position of the newest item that a build started now can see."""

    position: int
    fingerprint: str = ""
    dataset: Dataset | None = None


@dataclass(frozen=True)
class PairEvidence:
    """What preference datasets are made from: the specialist's judgements, its saved drafts by id, deliverables and revisions of drafts."""

    judgements: tuple[Judgement, ...]
    drafts: Mapping[str, KeptDraft]
    deliverables: tuple[Document, ...]
    revisions: tuple[Revision, ...] = ()

    def list_adapters(self, rows: Iterable[PairRow]) -> tuple[str, ...]:
        """The adapters whose drafts were judged for the rows, or finished to their documents, sorted; without the base."""
        wanted = {key for row in rows for key in (*row.judgement_ids, *row.document_ids)}
        ranked = (key for judgement in self.judgements if judgement.judgement_id in wanted for key in judgement.drafts)
        finished = (document.draft_id for document in self.deliverables if document.document_id in wanted)
        drafts = (self.drafts[key] for key in {*ranked, *finished} if key in self.drafts)
        return tuple(sorted({draft.adapter_digest for draft in drafts} - {""}))


def text_id(*parts: object) -> str:
    """The id, for erasures, of a text that comes from no document."""
    return f"{TEXT}{fingerprint(*parts)[:32]}"


def draft_text_id(draft_id: str) -> str:
    """The id, for erasures, of a draft that an expert edited, as inference forms it."""
    return f"{TEXT}{draft_id.removeprefix(DRAFT)}"


def is_text_id(document_id: str) -> bool:
    """True if it is the id of a text that comes from no document."""
    return document_id.startswith(TEXT)


def fingerprint(*parts: object) -> str:
    """SHA-256 of the parts, hexadecimal."""
    # As `json.dumps` writes a list, in half of its time.
    text = ", ".join(map(encode_basestring_ascii, map(str, parts)))
    return hashlib.sha256(f"[{text}]".encode()).hexdigest()


def is_due(policy: BuildPolicy, progress: BuildProgress) -> bool:
    """True if the policy asks for a build now, and something arrived since the last attempt."""
    if policy.min_new_items <= 0 or progress.new_items < policy.min_new_items:
        return False
    if progress.newest_position <= progress.tried_position or progress.seconds_since_new is None:
        return False
    has_rested = progress.seconds_since_build is None or progress.seconds_since_build >= policy.min_interval_seconds
    return has_rested and progress.seconds_since_new >= policy.quiet_seconds


def describe_wait(policy: BuildPolicy, progress: BuildProgress, noun: str) -> str:
    """What the next build waits for, as one sentence. The rule is that of `is_due`."""
    if policy.min_new_items <= 0:
        return "Built on command only."
    if progress.newest_position <= progress.tried_position or progress.seconds_since_new is None:
        return f"Waits for new {noun}: {policy.min_new_items} make a build due."
    if progress.new_items < policy.min_new_items:
        missing = policy.min_new_items - progress.new_items
        return f"{progress.new_items} new {noun}; a build needs {policy.min_new_items}: {missing} to go."
    rest = policy.min_interval_seconds - (progress.seconds_since_build or policy.min_interval_seconds)
    quiet = policy.quiet_seconds - progress.seconds_since_new
    if rest > 0 and rest >= quiet:
        return f"Enough new {noun}; the last build was too recent: {rest:.0f} seconds to go."
    if quiet > 0:
        return f"Enough new {noun}; a build starts {quiet:.0f} seconds after the newest one if no further ones arrive."
    return f"Enough new {noun}; the build is due."
