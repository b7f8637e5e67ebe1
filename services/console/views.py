"""What the pages show: the services' answers as the console knows them. Times are UTC."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

T = TypeVar("T")

# The one reason that anonymization alone gives; every other stops a submission at ingestion.
STOPPED_AT_BARRIER = "UNREADABLE"


@dataclass(frozen=True)
class Page(Generic[T]):
    """A page of a list; the token asks for the next one, and is empty on the last."""

    items: tuple[T, ...] = ()
    next_token: str = ""


@dataclass(frozen=True)
class Labels:
    """Labels of a document."""

    source: str = ""
    department: str = ""
    confidentiality: str = ""


@dataclass(frozen=True)
class Document:
    """A document as it passed the barrier; findings count what was found, by type."""

    document_id: str
    sequence: int
    kind: str
    labels: Labels
    format: str
    char_count: int
    findings: Mapping[str, int]
    create_time: datetime | None = None


@dataclass(frozen=True)
class Rejection:
    """A submission that goes no further."""

    document_id: str
    stage: str
    reason: str
    hint: str
    duplicate_of: str
    labels: Labels
    format: str
    create_time: datetime | None = None


@dataclass(frozen=True)
class Flow:
    """Where submissions are, counted."""

    ingested: int = 0
    anonymized: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    findings: Mapping[str, int] = field(default_factory=dict)
    dead_lettered: Mapping[str, int] = field(default_factory=dict)

    @property
    def submitted(self) -> int:
        """Submissions that came in, as far as they are accounted for."""
        at_ingestion = sum(count for reason, count in self.rejected.items() if reason != STOPPED_AT_BARRIER)
        return max(self.ingested + at_ingestion, self.anonymized + self.rejected_total)

    @property
    def rejected_total(self) -> int:
        """Rejected submissions."""
        return sum(self.rejected.values())

    @property
    def under_way(self) -> int:
        """Submissions that neither passed nor were rejected yet."""
        return self.submitted - self.anonymized - self.rejected_total


@dataclass(frozen=True)
class Dataset:
    """An immutable set of rows."""

    digest: str
    specialist: str
    kind: str
    train_rows: int
    held_out_rows: int
    base: str
    recipe: str
    documents: int
    create_time: datetime | None = None


@dataclass(frozen=True)
class Evaluated:
    """Scores of a candidate beside base and incumbent, by metric."""

    evaluation_id: str
    adapter_digest: str
    dataset_digest: str
    base: Mapping[str, float]
    candidate: Mapping[str, float]
    incumbent: Mapping[str, float]
    incumbent_digest: str
    incumbent_generation: int
    rows: int
    create_time: datetime | None = None


@dataclass(frozen=True)
class Adapter:
    """Weights that a run made, and what is known of them."""

    digest: str
    kind: str
    specialist: str
    run_id: str
    dataset_digest: str
    base: str
    parent_digest: str = ""
    steps: int = 0
    first_loss: float = 0.0
    last_loss: float = 0.0
    tokens_per_second: float = 0.0
    seconds: float = 0.0
    create_time: datetime | None = None
    evaluation: Evaluated | None = None
    decision: str = "waiting"
    refusals: tuple[str, ...] = ()
    serving: bool = False
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """An evaluation, finished or not, with its stored report."""

    evaluation_id: str
    state: str
    rows_done: int = 0
    rows_total: int = 0
    reason: str = ""
    result: Evaluated | None = None
    report_markdown: str = ""
    plot_png: bytes = b""


@dataclass(frozen=True)
class Replica:
    """How far a ready inference replica is with what serves."""

    name: str
    serving: bool
    reason: str = ""
    seen_time: datetime | None = None


@dataclass(frozen=True)
class Serving:
    """What a specialist's name means; generation 0 before the first promotion."""

    generation: int = 0
    adapter_digest: str = ""
    previous_digest: str = ""
    create_time: datetime | None = None
    replicas: tuple[Replica, ...] = ()
    finished: bool = False


@dataclass(frozen=True)
class Arm:
    """The calls of one arm of a canary; medians of their seconds, None where nothing was answered."""

    callers: int = 0
    calls: int = 0
    errors: int = 0
    first_token_seconds: float | None = None
    token_seconds: float | None = None


@dataclass(frozen=True)
class Canary:
    """An adapter that a share of the callers gets, or got. The state is `running`, `forward`, `back` or `ended`."""

    adapter_digest: str
    percent: int
    state: str
    reason: str
    tried: Arm
    beside: Arm
    start_time: datetime | None = None
    end_time: datetime | None = None


@dataclass(frozen=True)
class Threshold:
    """What an evaluation must reach in one metric."""

    metric: str
    min_gain_over_base: float
    max_loss_to_incumbent: float


@dataclass(frozen=True)
class Specialist:
    """A named purpose and what serves it."""

    name: str
    revision: int
    description: str
    base: str
    recipe: str
    selection: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    min_new_items: int = 0
    quiet_seconds: int = 0
    min_interval_seconds: int = 0
    thresholds: tuple[Threshold, ...] = ()
    min_rows: int = 0
    max_parity: float = 0.1
    house_terms: int = 0
    use_teacher: bool = False
    keep_drafts: bool = False
    private_prompts: bool = False
    preference_recipe: str = ""
    filters: tuple[tuple[str, str], ...] = ()
    update_time: datetime | None = None
    serving: Serving = Serving()
    canary: Canary | None = None


@dataclass(frozen=True)
class KeptText:
    """What is kept of a draft's words, anonymised. The state is `kept`, `expired` or `not kept`; turns are (role, text)."""

    state: str
    turns: tuple[tuple[str, str], ...] = ()
    answer: str = ""


@dataclass(frozen=True)
class Draft:
    """One answer that was served; it holds no text."""

    draft_id: str
    specialist: str
    generation: int
    adapter_digest: str
    dataset_digest: str
    base: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    first_token_seconds: float
    seconds: float
    key_id: str
    create_time: datetime | None = None


@dataclass(frozen=True)
class Trace:
    """Where a draft came from; no adapter and dataset for the base."""

    draft: Draft
    adapter: Adapter | None = None
    dataset: Dataset | None = None
    documents: tuple[Document, ...] = ()
    evaluation: Evaluated | None = None


@dataclass(frozen=True)
class Key:
    """An API key without its secret."""

    key_id: str
    name: str
    role: str
    specialists: tuple[str, ...]
    revoked: bool
    create_time: datetime | None = None
    expire_time: datetime | None = None
    methods: tuple[str, ...] = ()
    calls_per_minute: int = 0

    def state(self, now: datetime) -> str:
        """`active`, `revoked` or `expired`."""
        if self.revoked:
            return "revoked"
        return "expired" if self.expire_time and self.expire_time <= now else "active"


@dataclass(frozen=True)
class NewKey:
    """A key that was just made, with its secret: shown once, kept nowhere, and written into no log."""

    key: Key
    secret: str = field(repr=False)


@dataclass(frozen=True)
class Erasure:
    """Documents that are forgotten everywhere. `receipt` is the signed JSON, empty while somebody is waited for."""

    erasure_id: str
    document_ids: tuple[str, ...]
    lifted: tuple[str, ...]
    reason: str
    waiting_for: tuple[str, ...]
    receipt: str = ""
    signature: str = ""
    create_time: datetime | None = None


@dataclass(frozen=True)
class Piece:
    """The next words of an answer; the last one says why it ended."""

    draft_id: str
    text: str
    finish_reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    generation: int = 0
    adapter_digest: str = ""
    base: str = ""


@dataclass(frozen=True)
class Served:
    """What a name means at inference, here and now."""

    name: str
    generation: int
    adapter_digest: str
    base: str
    context_length: int
