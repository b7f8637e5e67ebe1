"""The registry's rules: what a specialist must be, what the gate admits, what serves next."""

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
from tailor.errors import Aborted, FailedPrecondition, InvalidArgument
from tailor.storage.ref import Ref

SLUG = re.compile(r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")
RESERVED_NAMES = {"base"}
METRICS = ("rouge1", "rouge2", "rougeL", "bleu", "house_terms_f1", "perplexity")
PARITY = "parity"
LOWER_IS_BETTER = {"perplexity"}
# A score that meets a threshold exactly is not refused for its binary fraction.
ROUNDING = 1e-9
MAX_HOUSE_TERMS = 1000
MAX_RANKED = 8
MAX_COMMENT = 4000
POLICY = "policy"
MAX_CALLS_PER_MINUTE = 1_000_000
# Nats a token that a candidate may differ from the trainer, where the gate says nothing.
MAX_PARITY = 0.1
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
class Threshold:
    """What one metric must reach, in the metric's own unit."""

    metric: str
    min_gain_over_base: float = 0.0
    max_loss_to_incumbent: float = 0.0


@dataclass(frozen=True)
class Gate:
    """All thresholds must be met, on at least `min_rows` rows."""

    thresholds: tuple[Threshold, ...] = ()
    min_rows: int = 0
    max_parity: float = 0.0


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
class Evaluation:
    """A candidate's scores beside those of the base and the incumbent."""

    evaluation_id: str
    adapter_digest: str
    specialist: str
    rows: int
    base: Mapping[str, float]
    candidate: Mapping[str, float]
    incumbent: Mapping[str, float] | None
    incumbent_generation: int
    incumbent_digest: str = ""
    payload: bytes = b""


class Decision(Enum):
    """What the gate made of an evaluation."""

    PASSED = "passed"
    REFUSED = "refused"
    STALE = "stale"


@dataclass(frozen=True)
class ServingCanary:
    """A candidate that a share of the callers, in percent, gets instead of what serves."""

    adapter_digest: str
    manifest: Ref
    dataset_digest: str
    system_prompt: str
    percent: int


@dataclass(frozen=True)
class Serving:
    """Which adapter a specialist's name means; generation 0 is the base, before the first promotion."""

    specialist: str
    generation: int = 0
    adapter_digest: str = ""
    manifest: Ref | None = None
    dataset_digest: str = ""
    base: str = ""
    previous_digest: str = ""
    system_prompt: str = ""
    private_prompts: bool = False
    canary: ServingCanary | None = None


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
        raise InvalidArgument("INVALID_SPECIALIST", "The specialist's definition is wrong.", field_violations=wrong)


def refusals(gate: Gate, evaluation: Evaluation) -> tuple[str, ...]:
    """Every threshold that the evaluation does not meet, for people; empty if the gate is met."""
    found = []
    if evaluation.rows < gate.min_rows:
        found.append(f"measured on {evaluation.rows} rows, the gate wants {gate.min_rows}")
    found.extend(_disparity(gate, evaluation))
    for threshold in gate.thresholds:
        found.extend(_shortfalls(threshold, evaluation))
    return tuple(found)


def _disparity(gate: Gate, evaluation: Evaluation) -> list[str]:
    """What serves must be what was trained."""
    most = gate.max_parity or MAX_PARITY
    found = evaluation.candidate.get(PARITY)
    if found is None:
        return [f"{PARITY} was not measured: the trainer stored nothing to compare with"]
    if not found <= most + ROUNDING:
        return [f"{PARITY} is {found:.4f} nats a token from what the trainer stored, the gate allows {most:.4f}"]
    return []


def _shortfalls(threshold: Threshold, evaluation: Evaluation) -> list[str]:
    metric = threshold.metric
    if metric not in evaluation.candidate or metric not in evaluation.base:
        return [f"{metric} was not measured"]
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    candidate = evaluation.candidate[metric]
    found = []
    gain = sign * (candidate - evaluation.base[metric])
    if not gain >= threshold.min_gain_over_base - ROUNDING:
        found.append(f"{metric} gains {gain:.4f} over the base, the gate wants {threshold.min_gain_over_base:.4f}")
    if evaluation.incumbent is not None and metric in evaluation.incumbent:
        loss = sign * (evaluation.incumbent[metric] - candidate)
        if not loss <= threshold.max_loss_to_incumbent + ROUNDING:
            found.append(
                f"{metric} is {loss:.4f} worse than what serves, the gate allows {threshold.max_loss_to_incumbent:.4f}"
            )
    return found


def next_serving(
    current: Serving, adapter: Adapter | None, specialist: Specialist, expected_generation: int
) -> Serving:
    """What serves all callers after a promotion (or, without an adapter, a return to the base); Aborted where somebody else was faster."""
    _expect(current, expected_generation)
    if adapter is not None:
        _check_policy(adapter, specialist)
    return Serving(
        specialist=specialist.name,
        generation=current.generation + 1,
        adapter_digest=adapter.digest if adapter else "",
        manifest=adapter.manifest if adapter else None,
        dataset_digest=adapter.dataset_digest if adapter else "",
        base=adapter.base if adapter else specialist.base,
        previous_digest=current.adapter_digest,
        system_prompt=specialist.system_prompt,
        private_prompts=specialist.private_prompts,
    )


def can_be_tried(current: Serving, adapter: Adapter) -> bool:
    """True where something serves on the adapter's own base, that a canary can be compared with."""
    return current.generation > 0 and current.base == adapter.base


def with_canary(
    current: Serving, adapter: Adapter, specialist: Specialist, percent: int, expected_generation: int
) -> Serving:
    """What serves while a share of the callers gets the adapter. Aborted where somebody else was faster, FailedPrecondition where it cannot
    be tried."""
    _expect(current, expected_generation)
    _check_policy(adapter, specialist)
    if current.canary is not None:
        raise FailedPrecondition("CANARY_RUNS", "Another canary runs; `tailor canary stop` takes it back.")
    if adapter.digest == current.adapter_digest:
        raise FailedPrecondition("SERVES_ALREADY", "The adapter serves all callers already.")
    if not can_be_tried(current, adapter):
        raise FailedPrecondition(
            "NOTHING_BESIDE", "Nothing serves on this adapter's base that it could be compared with; promote it."
        )
    canary = ServingCanary(
        adapter.digest, adapter.manifest, adapter.dataset_digest, specialist.system_prompt, percent=percent
    )
    return _again(current, specialist, canary)


def without_canary(current: Serving, specialist: Specialist, expected_generation: int) -> Serving:
    """What serves once the canary was taken back. Aborted where somebody else was faster, FailedPrecondition where none runs."""
    _expect(current, expected_generation)
    if current.canary is None:
        raise FailedPrecondition("NO_CANARY", "No canary runs; `tailor canary show` tells what became of the last.")
    return _again(current, specialist, None)


def _again(current: Serving, specialist: Specialist, canary: ServingCanary | None) -> Serving:
    """What serves, as a new generation."""
    generation, private = current.generation + 1, specialist.private_prompts
    return replace(current, generation=generation, canary=canary, private_prompts=private)


def _expect(current: Serving, generation: int) -> None:
    if current.generation != generation:
        raise Aborted(
            "GENERATION_MOVED",
            f"Generation {current.generation} serves, not {generation}: look again, then decide again.",
            generation=str(current.generation),
        )


def _check_policy(adapter: Adapter, specialist: Specialist) -> None:
    if adapter.specialist != specialist.name or adapter.kind != POLICY:
        raise FailedPrecondition("WRONG_ADAPTER", "Only a policy adapter of this specialist may serve.")


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
        raise InvalidArgument("INVALID_JUDGEMENT", "The judgement is wrong.", field_violations=wrong)


def one_specialist(drafts: list[Draft]) -> str:
    """The specialist that the drafts are of; the base's drafts may stand beside it."""
    names = {draft.specialist for draft in drafts if draft.specialist}
    if len(names) != 1:
        raise InvalidArgument("MIXED_DRAFTS", "Judge drafts of one specialist, beside the base's at most.")
    return names.pop()
