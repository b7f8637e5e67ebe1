"""What the catalogue holds, what a specialist and a judgement must be, and what the registry needs of others."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from typing import Protocol

from services.registry import comparing
from services.registry.comparing import CanaryRules
from services.registry.filters import Filters, violations
from services.registry.gate import METRICS, Gate
from tailor.errors import InvalidArgument, Reason
from tailor.storage.ref import Ref

SLUG = re.compile(r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")
RESERVED_NAMES = {"base"}
MAX_HOUSE_TERMS = 1000
MAX_RANKED = 8
MAX_COMMENT = 4000
POLICY = "policy"
MAX_CALLS_PER_MINUTE = 1_000_000
# What becomes of adapters that learned from an erased document.
MARK, RETIRE = "mark", "retire"


class FactKind(Enum):
    """The facts that the catalogue only keeps."""

    DATASET = "dataset"
    RUN = "run"
    ADAPTER = "adapter"
    DRAFT = "draft"
    SERVED = "served"


@dataclass(frozen=True)
class Fact:
    """A fact as it was stated: found by kind and id, listed by specialist, newest first. `payload` is the event's own encoding."""

    kind: FactKind
    fact_id: str
    specialist: str
    payload: bytes


@dataclass(frozen=True)
class Selection:
    """Admitted labels; an empty tuple admits every value."""

    sources: tuple[str, ...] = ()
    departments: tuple[str, ...] = ()
    confidentialities: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, str, str]:
        """Source, department and confidentiality that all its documents have; empty where they may differ."""
        admitted = (self.sources, self.departments, self.confidentialities)
        source, department, confidentiality = (values[0] if len(values) == 1 else "" for values in admitted)
        return source, department, confidentiality


@dataclass(frozen=True)
class RebuildPolicy:
    """When a dataset is due."""

    min_new_items: int = 0
    quiet_seconds: int = 0
    min_interval_seconds: int = 0


@dataclass(frozen=True)
class Specialist:
    """A named purpose."""

    name: str
    base: str
    recipe: str
    description: str = ""
    selection: Selection = field(default_factory=Selection)
    rebuild: RebuildPolicy = field(default_factory=RebuildPolicy)
    gate: Gate = field(default_factory=Gate)
    house_terms: tuple[str, ...] = ()
    system_prompt: str = ""
    use_teacher: bool = False
    preference_recipe: str = ""
    keep_drafts: bool = False
    private_prompts: bool = False
    on_erasure: str = MARK
    filters: Filters = field(default_factory=Filters)
    canary: CanaryRules | None = None
    revision: int = 0
    update_time: datetime | None = None

    def same_definition(self, other: "Specialist") -> bool:
        """True if only the revision and time differ."""
        return replace(self, revision=0, update_time=None) == replace(other, revision=0, update_time=None)


@dataclass(frozen=True)
class DocumentState:
    """Where one submission is: `ingested`, `anonymized`, `rejected` or `erased`."""

    submission_id: str
    document_id: str
    state: str
    payload: bytes
    sequence: int = 0
    source: str = ""
    department: str = ""
    confidentiality: str = ""
    reason: str = ""
    findings: Mapping[str, int] = field(default_factory=dict)
    format: str = ""
    language: str = ""
    char_count: int = 0
    stage: str = ""


@dataclass(frozen=True)
class Adapter:
    """What promotion must know of an adapter."""

    digest: str
    kind: str
    specialist: str
    manifest: Ref
    dataset_digest: str
    base: str
    parent_digest: str = ""


@dataclass(frozen=True)
class ApiKey:
    """An API key without its secret. No specialists or methods means all that the role may use; 0 calls a minute is no limit."""

    key_id: str
    name: str
    role: str
    specialists: tuple[str, ...]
    create_time: datetime
    expire_time: datetime | None = None
    revoked: bool = False
    methods: tuple[str, ...] = ()
    calls_per_minute: int = 0

    def alive(self, now: datetime) -> bool:
        """True while it admits its holder."""
        return not self.revoked and (self.expire_time is None or now < self.expire_time)


@dataclass(frozen=True)
class Draft:
    """What tracing and judging must know of a draft."""

    draft_id: str
    specialist: str
    adapter_digest: str
    dataset_digest: str
    key_id: str


@dataclass(frozen=True)
class Judgement:
    """An expert's ranking, marks (accuracy, style, usefulness; 0 is not given) and anonymised comment."""

    judgement_id: str
    specialist: str
    ranking: tuple[str, ...]
    rubric: tuple[int, int, int]
    comment: str
    create_time: datetime


@dataclass(frozen=True)
class ErasureReceipt:
    """What was signed, by whom: `body` is JSON, the key is Ed25519's 32 bytes."""

    body: str
    signature: bytes
    public_key: bytes


@dataclass(frozen=True)
class Erasure:
    """Documents that must be forgotten. `awaits` names who must answer, `waiting_for` who has not yet."""

    erasure_id: str
    document_ids: tuple[str, ...]
    reason: str
    create_time: datetime
    awaits: tuple[str, ...]
    waiting_for: tuple[str, ...] = ()
    lifted: tuple[str, ...] = ()
    receipt: ErasureReceipt | None = None


@dataclass(frozen=True)
class ForgottenBy:
    """One service's answer about one document."""

    erasure_id: str
    document_id: str
    service: str
    counts: Mapping[str, int]
    datasets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Taint:
    """An adapter that learned from an erased document. A retired one never serves again."""

    adapter_digest: str
    specialist: str
    erasure_id: str
    retired: bool


class Barrier(Protocol):
    """Anonymization, as far as the registry needs it."""

    def anonymize(self, text: str, labels: tuple[str, str, str]) -> str:
        """The text without personal values, as the policy says for source, department and confidentiality; Unavailable while the barrier
        does not answer."""
        ...


class Evaluator(Protocol):
    """Evaluation, as far as the registry needs it."""

    def evaluate(self, adapter_digest: str, request_id: str) -> None:
        """Have an adapter measured again."""
        ...


def check_specialist(specialist: Specialist) -> None:
    """InvalidArgument, naming every wrong field."""
    wrong: dict[str, str] = {}
    if not SLUG.match(specialist.name) or specialist.name in RESERVED_NAMES:
        wrong["name"] = "A name is 1 to 63 characters of a-z, 0-9 and '-', and not 'base'."
    for name in ("base", "recipe"):
        if not SLUG.match(getattr(specialist, name)):
            wrong[name] = "A slug of a-z, 0-9 and '-'."
    if specialist.preference_recipe and not SLUG.match(specialist.preference_recipe):
        wrong["preference_recipe"] = "Empty, or a slug of a-z, 0-9 and '-'."
    for index, threshold in enumerate(specialist.gate.thresholds):
        if threshold.metric not in METRICS:
            wrong[f"gate.thresholds[{index}].metric"] = f"One of {', '.join(METRICS)}."
        if threshold.max_loss_to_incumbent < 0:
            wrong[f"gate.thresholds[{index}].max_loss_to_incumbent"] = "0 or more."
    if not 0 <= specialist.gate.max_parity < math.inf:
        wrong["gate.max_parity"] = "0 or more nats a token."
    if not specialist.gate.thresholds:
        wrong["gate.thresholds"] = "At least one threshold: nothing may serve unmeasured."
    if (
        min(specialist.rebuild.min_new_items, specialist.rebuild.quiet_seconds, specialist.rebuild.min_interval_seconds)
        < 0
    ):
        wrong["rebuild"] = "Counts and seconds are 0 or more."
    if len(specialist.house_terms) > MAX_HOUSE_TERMS:
        wrong["house_terms"] = f"At most {MAX_HOUSE_TERMS} terms."
    wrong |= violations(specialist.filters)
    wrong |= comparing.violations(specialist.canary or CanaryRules())
    if wrong:
        raise InvalidArgument(
            Reason.INVALID_SPECIALIST, "The specialist's definition is wrong.", field_violations=wrong
        )


def check_judgement(ranking: tuple[str, ...], rubric: tuple[int, int, int], comment: str) -> None:
    """InvalidArgument, naming every wrong field."""
    wrong: dict[str, str] = {}
    if not 1 <= len(ranking) <= MAX_RANKED or len(set(ranking)) != len(ranking):
        wrong["ranking"] = f"1 to {MAX_RANKED} different draft ids, the best first."
    if any(not 0 <= mark <= 5 for mark in rubric):
        wrong["rubric"] = "Marks from 1 to 5; 0 where not given."
    if len(comment) > MAX_COMMENT:
        wrong["comment"] = f"At most {MAX_COMMENT} characters."
    if len(ranking) == 1 and not any(rubric):
        wrong["rubric"] = "A single draft needs marks."
    if wrong:
        raise InvalidArgument(Reason.INVALID_JUDGEMENT, "The judgement is wrong.", field_violations=wrong)


def one_specialist(drafts: list[Draft]) -> str:
    """The specialist that the drafts are of; the base's drafts may stand beside it."""
    names = {draft.specialist for draft in drafts if draft.specialist}
    if len(names) != 1:
        raise InvalidArgument(Reason.MIXED_DRAFTS, "Judge drafts of one specialist, beside the base's at most.")
    return names.pop()
