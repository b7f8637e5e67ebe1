"""What evaluation knows: adapters, held-out rows, scores; which rows are measured; and what it needs from outside."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from tailor.storage.ref import Ref

BASE = "base"
CANDIDATE = "candidate"
INCUMBENT = "incumbent"
PERPLEXITY = "perplexity"
PARITY = "parity"


class State(StrEnum):
    """Where an evaluation is."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


@dataclass(frozen=True)
class Adapter:
    """An adapter that was announced."""

    digest: str
    specialist: str
    dataset_digest: str
    base: str
    manifest: Ref

    @property
    def model(self) -> str:
        """Its name in inference, once loaded as a candidate."""
        return f"adapter:{self.digest}"


@dataclass(frozen=True)
class Serving:
    """What a specialist's name means now. An empty digest means the base."""

    specialist: str
    generation: int
    adapter_digest: str
    manifest: Ref | None = None


@dataclass(frozen=True)
class Terms:
    """A specialist's own terms."""

    specialist: str
    revision: int
    house_terms: tuple[str, ...]


@dataclass(frozen=True)
class HeldOutRow:
    """A held-out row: the chat before the answer as (role, content) pairs, and the answer."""

    row_id: str
    origin: str
    document_ids: tuple[str, ...]
    messages: tuple[tuple[str, str], ...]
    reference: str


@dataclass(frozen=True)
class Score:
    """Sum of an answer's natural log-probabilities, and its tokens."""

    log_probability: float
    tokens: int


@dataclass(frozen=True)
class Loaded:
    """A loaded candidate: its name in inference, and by how many nats a token it differs from what the trainer stored; None where it stored
    nothing."""

    model: str
    parity: float | None = None


@dataclass(frozen=True)
class Result:
    """What one model answered, and how likely it found the references; both in the order of the rows."""

    answers: tuple[str, ...]
    scores: tuple[Score, ...]


@dataclass(frozen=True)
class Parameters:
    """How every model is asked. `key` differs where results may not be compared."""

    max_rows: int = 16
    max_tokens: int = 160
    concurrency: int = 8

    def key(self, rows: Sequence[HeldOutRow]) -> str:
        """SHA-256 over the rows and what decides an answer."""
        parts = [[row.row_id, row.messages, row.reference] for row in rows]
        return hashlib.sha256(json.dumps([self.max_tokens, parts]).encode()).hexdigest()


@dataclass(frozen=True)
class Evaluation:
    """One evaluation. `rows_done` and `rows_total` count over all models; `report` is set when it succeeded."""

    evaluation_id: str
    adapter: Adapter
    state: State = State.QUEUED
    attempts: int = 0
    rows_done: int = 0
    rows_total: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Measured:
    """The outcome of an evaluation: scores by model (base, candidate, incumbent) and metric."""

    evaluation: Evaluation
    rows: int
    scores: Mapping[str, Mapping[str, float]]
    incumbent: Serving | None
    report: Ref
    created_at: datetime | None = None


@dataclass(frozen=True)
class Comparison:
    """Everything a report is made of. `answers` and `row_metrics` are by model, in the order of the rows."""

    evaluation: Evaluation
    parameters: Parameters
    incumbent: Serving | None
    rows: Sequence[HeldOutRow]
    results: Mapping[str, Result]
    scores: Mapping[str, Mapping[str, float]]
    row_metrics: Mapping[str, Sequence[Mapping[str, float]]] = field(default_factory=dict)


class Repository(Protocol):
    """Evaluation's own database. Every method raises Unavailable while it does not answer."""

    def keep_dataset(self, digest: str, manifest: Ref) -> None:
        """Remember where a dataset's manifest is."""
        ...

    def dataset(self, digest: str) -> Ref | None:
        """A dataset's manifest."""
        ...

    def keep_adapter(self, adapter: Adapter) -> None:
        """Remember an adapter."""
        ...

    def adapter(self, digest: str) -> Adapter | None:
        """An adapter."""
        ...

    def queue(self, evaluation_id: str, adapter: Adapter) -> Evaluation:
        """Queue an evaluation unless it exists; the evaluation as it is."""
        ...

    def evaluation(self, evaluation_id: str) -> Evaluation | None:
        """An evaluation."""
        ...

    def newest(self, adapter_digest: str) -> Evaluation | None:
        """The newest evaluation of an adapter."""
        ...

    def measured(self, evaluation_id: str) -> Measured | None:
        """The outcome of an evaluation that succeeded."""
        ...

    def next(self) -> AbstractContextManager[Evaluation | None]:
        """Hold the oldest evaluation that is queued, or was interrupted, and that nobody holds; its attempts are counted."""
        ...

    def start(self, evaluation_id: str, rows_total: int) -> None:
        """It is being measured now."""
        ...

    def count(self, evaluation_id: str, rows_done: int) -> None:
        """So many rows are done."""
        ...

    def fail(self, evaluation_id: str, reason: str) -> None:
        """It cannot be made."""
        ...

    def keep_result(self, evaluation_id: str, model: str, key: str, result: Result) -> None:
        """Remember what a model did on the rows of a key."""
        ...

    def result(self, evaluation_id: str, model: str, key: str) -> Result | None:
        """What a model did in this evaluation before it was interrupted."""
        ...

    def result_of_adapter(self, adapter: str, key: str) -> Result | None:
        """What an adapter did in an evaluation of its own on the same rows."""
        ...

    def finish(self, measured: Measured) -> None:
        """Keep the outcome and state it, in one transaction, once."""
        ...


class Models(Protocol):
    """Inference. Every method raises Unavailable while it does not answer, NotFound for a model that it does not hold."""

    def load(self, adapter_digest: str, manifest: Ref) -> Loaded:
        """Load a candidate and compare it with the trainer."""
        ...

    def generate(self, model: str, messages: Sequence[tuple[str, str]], max_tokens: int) -> str:
        """The likeliest answer."""
        ...

    def score(self, model: str, messages: Sequence[tuple[str, str]], completion: str) -> Score:
        """How likely the model finds an answer."""
        ...


class Rows(Protocol):
    """Datasets."""

    def held_out(self, manifest: Ref) -> list[HeldOutRow]:
        """The held-out rows by id; FailedPrecondition where the dataset does not verify."""
        ...


class Reports(Protocol):
    """Stored reports."""

    def write(self, comparison: Comparison) -> Ref:
        """Store report.json, and report.md and scores.png beside it."""
        ...

    def markdown(self, report: Ref) -> str:
        """The report as Markdown."""
        ...

    def plot(self, report: Ref) -> bytes:
        """The plot as PNG."""
        ...

    def quotes(self, evaluation_id: str, document_id: str) -> bool:
        """True where an evaluation's report holds rows of a document, or is not whole."""
        ...

    def delete(self, evaluation_id: str) -> int:
        """Remove an evaluation's report; how many objects it had."""
        ...


# Answers and references, and the house terms, to the values by metric of all rows together; the same for each row alone.
Metrics = Callable[[Sequence[str], Sequence[str], Sequence[str]], dict[str, float]]


def choose_rows(rows: Sequence[HeldOutRow], limit: int) -> list[HeldOutRow]:
    """At most `limit` rows, spread over their origins, in the order of their ids."""
    by_origin: dict[str, list[HeldOutRow]] = {}
    for row in sorted(rows, key=lambda row: row.row_id):
        by_origin.setdefault(row.origin, []).append(row)
    queues = [by_origin[origin] for origin in sorted(by_origin)]
    turns = max((len(queue) for queue in queues), default=0)
    spread = [queue[turn] for turn in range(turns) for queue in queues if turn < len(queue)]
    return sorted(spread[:limit], key=lambda row: row.row_id)


def perplexity(scores: Sequence[Score]) -> float:
    """exp of the mean negative log-probability of a token; never beyond what a float holds."""
    tokens = sum(score.tokens for score in scores)
    mean = -sum(score.log_probability for score in scores) / max(1, tokens)
    return math.exp(min(mean, 700.0))
