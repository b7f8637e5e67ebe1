"""Evaluation's values and rules: adapters measured on held-out rows. Imports no library."""

import bisect
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from tailor.storage.ref import Ref

BASE = "base"
CANDIDATE = "candidate"
INCUMBENT = "incumbent"
PERPLEXITY = "perplexity"
PARITY = "parity"


class EvaluationState(StrEnum):
    """The progress of an evaluation."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


@dataclass(frozen=True)
class Adapter:
    """A trained adapter, as announced by its event."""

    digest: str
    specialist: str
    dataset_digest: str
    base: str
    manifest: Ref

    @property
    def model(self) -> str:
        """The name of the candidate in inference."""
        return f"adapter:{self.digest}"


@dataclass(frozen=True)
class Serving:
    """The adapter that a specialist's name refers to. An empty digest means the base."""

    specialist: str
    generation: int
    adapter_digest: str
    manifest: Ref | None = None


@dataclass(frozen=True)
class SpecialistTerms:
    """The house terms of a specialist."""

    specialist: str
    revision: int
    house_terms: tuple[str, ...]


@dataclass(frozen=True)
class Specialists:
    """The newest terms and serving adapter of every specialist, by name."""

    terms: dict[str, SpecialistTerms] = field(default_factory=dict)
    serving: dict[str, Serving] = field(default_factory=dict)

    def update_terms(self, terms: SpecialistTerms) -> None:
        """Ignores an older revision."""
        known = self.terms.get(terms.specialist)
        if known is None or terms.revision > known.revision:
            self.terms[terms.specialist] = terms

    def update_serving(self, serving: Serving) -> None:
        """Ignores an older generation."""
        known = self.serving.get(serving.specialist)
        if known is None or serving.generation > known.generation:
            self.serving[serving.specialist] = serving


@dataclass(frozen=True)
class HeldOutRow:
    """A held-out row: the chat messages before the answer as (role, content) pairs, and the reference answer.

    Rows of golden documents have the task `test`; they may have `key_insights`, as JSON.
    """

    row_id: str
    task: str
    document_ids: tuple[str, ...]
    messages: tuple[tuple[str, str], ...]
    reference: str
    language: str = ""
    key_insights: str = ""

    @property
    def prompt(self) -> str:
        """All messages before the answer."""
        return "\n\n".join(content for _, content in self.messages)


@dataclass(frozen=True)
class Score:
    """The sum of the natural log-probabilities of an answer's tokens, and the number of tokens."""

    log_probability: float
    tokens: int


@dataclass(frozen=True)
class AnsweredRow:
    """A held-out row with what a model made of it. `answer` is None if the row was only scored, `score` if it was only answered.

    `finished` is False if the answer was cut at the maximum of tokens.
    """

    row: HeldOutRow
    answer: str | None
    score: Score | None
    finished: bool = True


@dataclass(frozen=True)
class LoadedCandidate:
    """A loaded candidate and its name in inference.

    `parity` is the largest difference from the trainer's probe scores in nats per token, or None if the trainer stored none.
    """

    model: str
    parity: float | None = None


@dataclass(frozen=True)
class ModelResult:
    """The answers of one model and its scores of the references, both in the order of the rows."""

    answers: tuple[str, ...]
    scores: tuple[Score, ...]


@dataclass(frozen=True)
class Parameters:
    """How every model generates its answers."""

    max_rows: int = 16
    max_tokens: int = 160
    concurrency: int = 8

    def key(self, rows: Sequence[HeldOutRow]) -> str:
        """SHA-256 of the rows and of the parameters that affect answers. Results with different keys cannot be compared."""
        parts = [[row.row_id, row.messages, row.reference] for row in rows]
        return hashlib.sha256(json.dumps([self.max_tokens, parts]).encode()).hexdigest()


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
    attempts: int = 0
    rows_done: int = 0
    rows_total: int = 0
    reason: str = ""


@dataclass(frozen=True)
class EvaluationResult:
    """The result of a successful evaluation: scores by model (base, candidate, incumbent) and metric."""

    evaluation: Evaluation
    rows: int
    scores: Mapping[str, Mapping[str, float]]
    incumbent: Serving | None
    report: Ref
    created_at: datetime | None = None


@dataclass(frozen=True)
class ReportData:
    """The content of a report. `results`, `scores` and `row_metrics` are by model; `row_metrics` are in the order of the rows."""

    evaluation: Evaluation
    parameters: Parameters
    incumbent: Serving | None
    rows: Sequence[HeldOutRow]
    results: Mapping[str, ModelResult]
    scores: Mapping[str, Mapping[str, float]]
    row_metrics: Mapping[str, Sequence[Mapping[str, float]]] = field(default_factory=dict)


def choose_rows(rows: Iterable[tuple[str, str]], limit: int) -> list[str]:
    """Of rows as (id, task), the ids of at most `limit`, evenly from all tasks, sorted.

    Streams the rows: only the first `limit` ids of each task are in memory.
    """
    by_task: dict[str, list[str]] = {}
    for row_id, task in rows:
        first = by_task.setdefault(task, [])
        bisect.insort(first, row_id)
        del first[limit:]
    queues = [by_task[task] for task in sorted(by_task)]
    rounds = max((len(queue) for queue in queues), default=0)
    spread = [queue[place] for place in range(rounds) for queue in queues if place < len(queue)]
    return sorted(spread[:limit])


def perplexity(scores: Sequence[Score]) -> float:
    """exp of the mean negative log-probability per token, capped at exp(700) to stay within a float."""
    tokens = sum(score.tokens for score in scores)
    mean = -sum(score.log_probability for score in scores) / max(1, tokens)
    return math.exp(min(mean, 700.0))
