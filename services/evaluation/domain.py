"""Evaluation's values and rules: adapters measured on held-out rows. Imports no library."""

import bisect
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from tailor.errors import Reason
from tailor.storage.ref import Ref
from tailor.values import EvaluationPolicy, MetricDefinition, SamplingDefaults

# Models of an evaluation; an external one is `external:NAME`.
BASE = "base"
FEW_SHOT = "few_shot"
PROMPT = "prompt"
EXTERNAL = "external:"
INCUMBENT = "incumbent"
CANDIDATE = "candidate"
# The candidate's difference from the trainer's probe scores, among the suites' measures.
PARITY = "parity"
LOG_LIKELIHOOD = "log_likelihood"
# Task of the rows of golden documents.
GOLDEN = "test"
# Why inference refuses a text that its context does not hold.
TOO_LONG = (Reason.ROW_TOO_LONG, Reason.PROMPT_TOO_LONG)
# Fewer ranked pairs say nothing about a judge model.
MIN_RANKED_PAIRS = 10
PAIR_MARGIN, WIN_RATE = "pair_margin", "win_rate"


class EvaluationState(StrEnum):
    """The progress of an evaluation."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"

    @property
    def is_open(self) -> bool:
        """True until it has ended."""
        return self in (EvaluationState.QUEUED, EvaluationState.RUNNING)


@dataclass(frozen=True)
class Adapter:
    """A trained adapter, as announced by its event.

    `sft_dataset_digest` and `preference_dataset_digest` are what it and the stages before it learned from; empty for none. The next stage
    of its run starts from an `intermediate` one.
    """

    digest: str
    specialist: str
    dataset_digest: str
    base: str
    manifest: Ref
    parent_digest: str = ""
    sft_dataset_digest: str = ""
    preference_dataset_digest: str = ""
    intermediate: bool = False

    @property
    def model(self) -> str:
        """The name of the candidate in inference."""
        return f"adapter:{self.digest}"


@dataclass(frozen=True)
class AnnouncedDataset:
    """A dataset as its event announced it. `ranked_for` is the specialist whose drafts it ranks; empty for datasets of documents."""

    digest: str
    manifest: Ref
    ranked_for: str = ""


@dataclass(frozen=True)
class Serving:
    """The adapter that a specialist's name refers to. An empty digest means the base."""

    specialist: str
    generation: int
    adapter_digest: str
    manifest: Ref | None = None
    base: str = ""


@dataclass(frozen=True)
class SpecialistTerms:
    """The part of a specialist's definition that concerns its evaluation. Without `metrics`, the built-in ones are measured.

    `definition_digest` changes whenever its metrics or its gate do.
    """

    name: str
    revision: int
    house_terms: tuple[str, ...]
    sampling: SamplingDefaults = field(default_factory=SamplingDefaults)
    metrics: tuple[MetricDefinition, ...] = ()
    evaluation: EvaluationPolicy = field(default_factory=EvaluationPolicy)
    definition_digest: str = ""
    deleted: bool = False


@dataclass(frozen=True)
class Specialists:
    """The newest terms and serving adapter of every specialist, by name."""

    terms: dict[str, SpecialistTerms] = field(default_factory=dict)
    serving: dict[str, Serving] = field(default_factory=dict)

    def update_terms(self, terms: SpecialistTerms) -> None:
        """Ignores an older revision."""
        known = self.terms.get(terms.name)
        if known is None or terms.revision > known.revision:
            self.terms[terms.name] = terms

    def update_serving(self, serving: Serving) -> None:
        """Ignores an older generation."""
        known = self.serving.get(serving.specialist)
        if known is None or serving.generation > known.generation:
            self.serving[serving.specialist] = serving


@dataclass(frozen=True)
class HeldOutRow:
    """A held-out row: the chat messages before the answer as (role, content) pairs, and the reference answer.

    The reference of a pair is its chosen answer; only a pair has `rejected`. Rows of golden documents have the task `test`; they may have
    `key_insights`, as JSON.
    """

    row_id: str
    task: str
    document_ids: tuple[str, ...]
    messages: tuple[tuple[str, str], ...]
    reference: str
    language: str = ""
    key_insights: str = ""
    rejected: str | None = None

    @property
    def prompt(self) -> str:
        """All messages before the answer."""
        return "\n\n".join(content for _, content in self.messages)


@dataclass(frozen=True)
class RankedPair:
    """Two drafts to one prompt of which experts preferred the chosen one."""

    row_id: str
    document_ids: tuple[str, ...]
    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Agreement:
    """Cohen's kappa of the judge model with the experts over a number of ranked pairs; None over fewer than ten."""

    kappa: float | None
    pairs: int
    failures: int = 0

    def shortfall(self, minimum: float) -> str:
        """Why the judge model's scores do not count in the gate; empty if they do."""
        if self.kappa is None:
            return (
                f"shown, but it does not count: the judge model's agreement with the experts is unknown, because {self.pairs} ranked pairs"
                f" exist and {MIN_RANKED_PAIRS} are needed"
            )
        if self.kappa < minimum:
            return (
                f"shown, but it does not count: the judge model's agreement with the experts is kappa {self.kappa:.2f} over"
                f" {self.pairs} pairs, and at least {minimum:.2f} is needed"
            )
        return ""


@dataclass(frozen=True)
class Definition:
    """A specialist's metrics and gate as they were frozen at their first evaluation."""

    digest: str
    revision: int
    freeze_time: datetime


@dataclass(frozen=True)
class Score:
    """The sum of the natural log-probabilities of an answer's tokens, and the number of tokens."""

    log_probability: float
    tokens: int


@dataclass(frozen=True)
class Answer:
    """One answer, and what it took. `finished` is False if it was cut at the maximum of tokens."""

    text: str
    finished: bool = True
    seconds: float = 0.0
    prompt_tokens: int = 0
    tokens: int = 0


@dataclass(frozen=True)
class AnsweredRow:
    """A row with one model's answer, and its scores of the reference and, of a pair, of the rejected answer.

    `answer` is None for rows that are only scored; the scores are None for models that cannot score. `finished` is False if the answer was
    cut at the maximum of tokens.
    """

    row: HeldOutRow
    answer: str | None
    score: Score | None
    finished: bool = True
    rejected_score: Score | None = None


@dataclass(frozen=True)
class LoadedCandidate:
    """A loaded candidate and its name in inference.

    `parity` is the largest difference from the trainer's probe scores in nats per token, or None if the trainer stored none.
    """

    model: str
    parity: float | None = None


@dataclass(frozen=True)
class ModelResult:
    """The answers of one model and its scores, in the order of the rows; None if a row was not answered or cannot be scored.

    A model that gives log-probabilities has no score of a row that does not fit its context. `notes` are those of the `EvaluatedModel`.
    """

    answers: tuple[Answer | None, ...]
    scores: tuple[Score | None, ...]
    rejected_scores: tuple[Score | None, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)

    def answered_rows(self, rows: Sequence[HeldOutRow]) -> list[AnsweredRow]:
        """The rows with their answers and scores."""
        rejected = self.rejected_scores or (None,) * len(rows)
        return [
            AnsweredRow(row, answer.text if answer else None, score, answer.finished if answer else True, other)
            for row, answer, score, other in zip(rows, self.answers, self.scores, rejected, strict=True)
        ]

    def per_token_of(self, other: "ModelResult") -> "ModelResult":
        """The scores of the same texts with the other's numbers of tokens: tokenizers of two bases do not split a text alike."""

        def count_as(ours: Sequence[Score | None], theirs: Sequence[Score | None]) -> tuple[Score | None, ...]:
            pairs = zip(ours, theirs, strict=True)
            return tuple(replace(score, tokens=it.tokens) if score and it else score for score, it in pairs)

        if not self.rejected_scores or not other.rejected_scores:
            return replace(self, scores=count_as(self.scores, other.scores))
        rejected = count_as(self.rejected_scores, other.rejected_scores)
        return replace(self, scores=count_as(self.scores, other.scores), rejected_scores=rejected)

    def take(self, places: Sequence[int]) -> "ModelResult":
        """The result on some of the rows."""
        rejected = tuple(self.rejected_scores[place] for place in places) if self.rejected_scores else ()
        return ModelResult(
            tuple(self.answers[place] for place in places),
            tuple(self.scores[place] for place in places),
            rejected,
            self.notes,
        )


@dataclass(frozen=True)
class OptimizedPrompt:
    """Instructions, and the documents of the rows that they were optimised on."""

    instructions: str
    document_ids: tuple[str, ...]


@dataclass(frozen=True)
class Estimate:
    """A measured value with its 95 % interval, on a number of rows. NaN with infinite ends if nothing was measured."""

    value: float
    low: float
    high: float
    rows: int


@dataclass(frozen=True)
class MetricFigures:
    """The estimates of one metric or suite's measure by model, and the candidate's paired gain over each other model."""

    metric: str
    lower_is_better: bool
    models: Mapping[str, Estimate]
    gains: Mapping[str, Estimate]


class GoalState(StrEnum):
    """Reached or missed if the whole 95 % interval says so, else open."""

    REACHED = "reached"
    MISSED = "missed"
    OPEN = "open"


@dataclass(frozen=True)
class Goal:
    """A value, or a gain over the base, that a specialist wants of a metric, and what was measured of it."""

    metric: str
    goal: float
    is_gain: bool
    estimate: Estimate
    state: GoalState


@dataclass(frozen=True)
class ModelCost:
    """What the answers of one model took, and how many were cut at the maximum of tokens. Without a price, `price_per_1000` is None."""

    model: str
    answers: int
    median_seconds: float
    p95_seconds: float
    prompt_tokens: float
    answer_tokens: float
    price_per_1000: float | None = None
    currency: str = ""
    cut_answers: int = 0


@dataclass(frozen=True)
class HeldOutSet:
    """The chosen rows, sorted by id, and the ids of those that are answered; the others are only scored. `total` counts all rows, and
    `total_pairs` the pairs among them.

    `too_long` counts chosen rows that were left out, because they do not fit the context that inference serves.
    """

    rows: tuple[HeldOutRow, ...]
    answered: frozenset[str]
    total: int
    too_long: int = 0
    total_pairs: int = 0

    @property
    def has_pairs(self) -> bool:
        return self.pairs > 0

    @property
    def pairs(self) -> int:
        """The number of rows that are pairs."""
        return sum(row.rejected is not None for row in self.rows)

    def add_documents(self, documents: "HeldOutSet") -> "HeldOutSet":
        """These pairs with documents' rows. The pairs are then only scored, because the documents' rows have written references."""
        total = documents.total + self.total
        return HeldOutSet(documents.rows + self.rows, documents.answered, total, total_pairs=self.total_pairs)

    def take(self, places: Sequence[int]) -> "HeldOutSet":
        """These rows; the others count as too long."""
        rows = tuple(self.rows[place] for place in places)
        answered = self.answered & {row.row_id for row in rows}
        return replace(self, rows=rows, answered=answered, too_long=self.too_long + len(self.rows) - len(rows))


def result_key(held_out: HeldOutSet, sampling: SamplingDefaults, *parts: str) -> str:
    """SHA-256 of the rows and of all that affects answers. `parts` name what else does, such as a model's prompts."""
    rows = [
        [row.row_id, row.messages, row.reference, row.rejected, row.row_id in held_out.answered]
        for row in held_out.rows
    ]
    drawn = [sampling.temperature, sampling.top_p, sampling.repetition_penalty, sampling.max_tokens, sampling.thinking]
    return hashlib.sha256(json.dumps([*parts, drawn, rows]).encode()).hexdigest()


@dataclass(frozen=True)
class RetryLimits:
    """When an evaluation fails: after `give_up_seconds` of waiting for a dependency, or after `max_starts` starts."""

    give_up_seconds: float = 3600
    max_starts: int = 10


@dataclass(frozen=True)
class Evaluation:
    """One evaluation. `rows_done` and `rows_total` count the rows of all models; `reason` is set if it failed."""

    evaluation_id: str
    adapter: Adapter
    state: EvaluationState = EvaluationState.QUEUED
    rows_done: int = 0
    rows_total: int = 0
    reason: str = ""


@dataclass(frozen=True)
class EvaluationResult:
    """The result of a successful evaluation. `not_measured` has the reason by metric or suite; `definitions` are as in `ReportData`.

    The preference datasets are those that the adapters learned from; `pairs` counts evaluated pairs, of `held_out_pairs` that there are.
    """

    evaluation: Evaluation
    rows: int
    incumbent: Serving | None
    report: Ref
    specialist_revision: int
    metrics: tuple[MetricFigures, ...]
    held_out_rows: int = 0
    rows_too_long: int = 0
    suites: tuple[MetricFigures, ...] = ()
    costs: tuple[ModelCost, ...] = ()
    not_measured: Mapping[str, str] = field(default_factory=dict)
    create_time: datetime | None = None
    definitions: tuple[Definition, ...] = ()
    goals: tuple[Goal, ...] = ()
    preference_dataset_digest: str = ""
    incumbent_preference_dataset_digest: str = ""
    pairs: int = 0
    held_out_pairs: int = 0
    judge_tokens: int = 0


@dataclass(frozen=True)
class ReportData:
    """The content of a report. `results` are by model; `row_values` are by metric and model, in the order of the rows.

    `counts` say by metric what the candidate's measurement left out or failed at. `definitions` are those of the specialist, the oldest
    first and the one that was measured last.
    """

    evaluation: Evaluation
    terms: SpecialistTerms
    incumbent: Serving | None
    held_out: HeldOutSet
    results: Mapping[str, ModelResult]
    metrics: tuple[MetricFigures, ...] = ()
    suites: tuple[MetricFigures, ...] = ()
    costs: tuple[ModelCost, ...] = ()
    not_measured: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    row_values: Mapping[str, Mapping[str, Sequence[float | None]]] = field(default_factory=dict)
    definitions: Sequence[Definition] = ()
    goals: tuple[Goal, ...] = ()
    suite_details: Mapping[str, Any] = field(default_factory=dict)
    suite_seconds: Mapping[str, float] = field(default_factory=dict)
    judge_tokens: int = 0

    def to_result(self, report: Ref) -> EvaluationResult:
        """The result with the reference of the stored report."""
        return EvaluationResult(
            evaluation=self.evaluation,
            rows=len(self.held_out.rows),
            incumbent=self.incumbent,
            report=report,
            specialist_revision=self.terms.revision,
            metrics=self.metrics,
            held_out_rows=self.held_out.total,
            rows_too_long=self.held_out.too_long,
            suites=self.suites,
            costs=self.costs,
            not_measured=self.not_measured,
            definitions=tuple(self.definitions),
            goals=self.goals,
            pairs=self.held_out.pairs,
            held_out_pairs=self.held_out.total_pairs,
            judge_tokens=self.judge_tokens,
        )


def choose_rows(rows: Iterable[tuple[str, str]], limit: int) -> list[str]:
    """Of rows as (id, task), the ids of at most `limit`, sorted: golden ones first, then evenly from all tasks.

    Streams the rows: only the first `limit` ids of each task are in memory.
    """
    by_task: dict[str, list[str]] = {}
    for row_id, task in rows:
        first = by_task.setdefault(task, [])
        bisect.insort(first, row_id)
        del first[limit:]
    return _choose_evenly(by_task, limit)


def spread_rows(rows: Iterable[tuple[str, str, tuple[str, ...]]], limit: int) -> list[str]:
    """Of rows as (id, task, documents), as `choose_rows`, and within a task evenly from all documents.

    Rows of one document are one cluster of an interval, so a row of another document shows more. The ids of all rows are in memory.
    """
    seen: Counter[tuple[str, ...]] = Counter()
    by_task: dict[str, list[tuple[int, str]]] = {}
    for row_id, task, documents in sorted(rows):
        by_task.setdefault(task, []).append((seen[documents], row_id))
        seen[documents] += task != GOLDEN
    return _choose_evenly({task: [row_id for _, row_id in sorted(queue)] for task, queue in by_task.items()}, limit)


def _choose_evenly(by_task: dict[str, list[str]], limit: int) -> list[str]:
    golden = by_task.pop(GOLDEN, [])
    queues = [by_task[task] for task in sorted(by_task)]
    rounds = max((len(queue) for queue in queues), default=0)
    spread = [queue[place] for place in range(rounds) for queue in queues if place < len(queue)]
    return sorted([*golden, *spread][:limit])
