"""Twins in memory of what evaluation needs."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from services.evaluation.adapters.report import StoredReports
from services.evaluation.domain import (
    Adapter,
    Evaluation,
    HeldOutRow,
    Loaded,
    Measured,
    Parameters,
    Result,
    Score,
    State,
    Terms,
)
from services.evaluation.handlers import Evaluating, Patience
from tailor.errors import NotFound, Reason, Unavailable
from tailor.storage.memory import MemoryStore
from tailor.storage.ref import Ref

MANIFEST = Ref("s3://datasets/data1/manifest.json", "0" * 64, 10)


def adapter(digest: str = "ad1") -> Adapter:
    return Adapter(
        digest, "reports", "data1", "smollm2", Ref(f"s3://models/adapters/{digest}/manifest.json", digest, 10)
    )


def row(number: int, origin: str = "section") -> HeldOutRow:
    return HeldOutRow(
        f"row_{number:03d}", origin, (f"doc_{number}",), (("user", f"Write {number}."),), f"line of sight {number}"
    )


class MemoryRepository:
    """Satisfies `domain.Repository`."""

    def __init__(self) -> None:
        self.datasets: dict[str, Ref] = {}
        self.adapters: dict[str, Adapter] = {}
        self.evaluations: dict[str, Evaluation] = {}
        self.results: dict[tuple[str, str, str], Result] = {}
        self.outcomes: dict[str, Measured] = {}
        self.counts: list[int] = []

    def keep_dataset(self, digest: str, manifest: Ref) -> None:
        self.datasets.setdefault(digest, manifest)

    def dataset(self, digest: str) -> Ref | None:
        return self.datasets.get(digest)

    def keep_adapter(self, adapter: Adapter) -> None:
        self.adapters.setdefault(adapter.digest, adapter)

    def adapter(self, digest: str) -> Adapter | None:
        return self.adapters.get(digest)

    def queue(self, evaluation_id: str, adapter: Adapter) -> Evaluation:
        return self.evaluations.setdefault(evaluation_id, Evaluation(evaluation_id, adapter))

    def evaluation(self, evaluation_id: str) -> Evaluation | None:
        return self.evaluations.get(evaluation_id)

    def newest(self, adapter_digest: str) -> Evaluation | None:
        return next((e for e in reversed(self.evaluations.values()) if e.adapter.digest == adapter_digest), None)

    def measured(self, evaluation_id: str) -> Measured | None:
        return self.outcomes.get(evaluation_id)

    @contextmanager
    def next(self) -> Iterator[Evaluation | None]:
        found = next((e for e in self.evaluations.values() if e.state in {State.QUEUED, State.RUNNING}), None)
        if found is not None:
            self._change(found.evaluation_id, attempts=found.attempts + 1)
            found = self.evaluations[found.evaluation_id]
        yield found

    def start(self, evaluation_id: str, rows_total: int) -> None:
        self._change(evaluation_id, state=State.RUNNING, rows_total=rows_total)

    def count(self, evaluation_id: str, rows_done: int) -> None:
        self.counts.append(rows_done)
        self._change(evaluation_id, rows_done=rows_done)

    def fail(self, evaluation_id: str, reason: str) -> None:
        self._change(evaluation_id, state=State.FAILED, reason=reason)

    def keep_result(self, evaluation_id: str, model: str, key: str, result: Result) -> None:
        self.results.setdefault((evaluation_id, model, key), result)

    def result(self, evaluation_id: str, model: str, key: str) -> Result | None:
        return self.results.get((evaluation_id, model, key))

    def result_of_adapter(self, adapter: str, key: str) -> Result | None:
        return next((r for (_, m, k), r in self.results.items() if (m, k) == (f"adapter:{adapter}", key)), None)

    def finish(self, measured: Measured) -> None:
        self.outcomes.setdefault(measured.evaluation.evaluation_id, measured)
        self._change(measured.evaluation.evaluation_id, state=State.SUCCEEDED)

    def _change(self, evaluation_id: str, **changes: object) -> None:
        self.evaluations[evaluation_id] = replace(self.evaluations[evaluation_id], **changes)


class FakeModels:
    """Satisfies `domain.Models`: the base says nothing of use, a candidate repeats the reference."""

    def __init__(self) -> None:
        self.loaded: set[str] = set()
        self.asked: list[str] = []
        self.scored: list[str] = []
        self.parity: float | None = 0.01
        self.failures: list[Exception] = []
        self.lock = threading.Lock()

    def load(self, adapter_digest: str, manifest: Ref) -> Loaded:
        self._fail()
        self.loaded.add(f"adapter:{adapter_digest}")
        return Loaded(f"adapter:{adapter_digest}", self.parity)

    def generate(self, model: str, messages: Sequence[tuple[str, str]], max_tokens: int) -> str:
        with self.lock:
            self._fail()
            self.asked.append(model)
        if model == "base":
            return "Nothing."
        if model not in self.loaded:
            raise NotFound(Reason.UNKNOWN_MODEL, "There is no such model.")
        return f"line of sight {messages[-1][1].split()[1].rstrip('.')}"

    def score(self, model: str, messages: Sequence[tuple[str, str]], completion: str) -> Score:
        self.scored.append(model)
        return Score(-4.0 if model == "base" else -2.0, 2)

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)


class FakeRows:
    """Satisfies `domain.Rows`."""

    def __init__(self, rows: Sequence[HeldOutRow]) -> None:
        self.rows = list(rows)

    def held_out(self, manifest: Ref) -> list[HeldOutRow]:
        return self.rows


def share_equal(answers: Sequence[str], references: Sequence[str], terms: Sequence[str]) -> dict[str, float]:
    """A metric that a person can do in the head."""
    return {"rougeL": sum(a == r for a, r in zip(answers, references, strict=True)) / len(answers)}


def make_app(**changes: object) -> Evaluating:
    """Handlers over twins, with one specialist, dataset and adapter known."""
    repository = MemoryRepository()
    repository.keep_dataset("data1", MANIFEST)
    values: dict[str, object] = {
        "repository": repository,
        "models": FakeModels(),
        "rows": FakeRows([row(number) for number in range(4)]),
        "metrics": share_equal,
        "reports": StoredReports(MemoryStore()),
        "parameters": Parameters(concurrency=2),
        "patience": Patience(give_up_seconds=100, max_starts=3),
        "terms": {"reports": Terms("reports", 1, ("line of sight",))},
        "sleep": lambda seconds: None,
    }
    return Evaluating(**(values | changes))


def down() -> Unavailable:
    return Unavailable(Reason("INFERENCE_UNAVAILABLE"), "Down.")
