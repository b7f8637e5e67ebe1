"""In-memory fakes of evaluation's ports."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from services.evaluation.domain import (
    Adapter,
    Agreement,
    Answer,
    Definition,
    Evaluation,
    EvaluationResult,
    EvaluationState,
    HeldOutRow,
    HeldOutSet,
    LoadedCandidate,
    ModelResult,
    Parameters,
    RankedPair,
    RetryLimits,
    Score,
    Specialists,
    SpecialistTerms,
)
from services.evaluation.judging import JudgeBench
from services.evaluation.ports import (
    Agreements,
    Artifacts,
    DefinitionStore,
    Evaluations,
    HeldOutRows,
    ModelResults,
    Models,
)
from services.evaluation.report import ReportStore
from services.evaluation.served_models import ServedModels
from services.evaluation.worker import EvaluationWorker
from tailor.errors import NotFound, Reason, Unavailable
from tailor.storage.memory import MemoryStore
from tailor.storage.ref import Ref
from tailor.values import MetricDefinition, SamplingDefaults

MANIFEST = Ref("s3://datasets/data1/manifest.json", "0" * 64, 10)


def make_adapter(digest: str = "ad1") -> Adapter:
    manifest = Ref(f"s3://models/adapters/{digest}/manifest.json", digest, 10)
    return Adapter(digest, "reports", "data1", "smollm2", manifest)


def make_row(number: int, task: str = "section") -> HeldOutRow:
    messages = (("user", f"Write {number}."),)
    return HeldOutRow(f"row_{number:03d}", task, (f"doc_{number}",), messages, f"line of sight {number}")


def make_terms(*metrics: str, **changes: Any) -> SpecialistTerms:
    definitions = tuple(MetricDefinition(name, name) for name in metrics or ("rougeL", "perplexity"))
    return SpecialistTerms("reports", 1, ("line of sight",), metrics=definitions, **changes)


def make_pair(number: int) -> HeldOutRow:
    """The base finds both answers equally likely, an adapter prefers the chosen one."""
    return replace(make_row(number, "critique"), row_id=f"pair_{number:03d}", rejected=f"rejected {number}")


class MemoryArtifacts(Artifacts):
    def __init__(self) -> None:
        self.datasets: dict[str, Ref] = {}
        self.adapters: dict[str, Adapter] = {}
        self.ranked: dict[str, str] = {}

    def add_dataset(self, digest: str, manifest: Ref, ranked_for: str = "") -> None:
        self.datasets.setdefault(digest, manifest)
        if ranked_for:
            self.ranked[ranked_for] = digest

    def newest_ranked(self, specialist: str) -> tuple[str, Ref] | None:
        digest = self.ranked.get(specialist)
        return None if digest is None else (digest, self.datasets[digest])

    def dataset(self, digest: str) -> Ref | None:
        return self.datasets.get(digest)

    def add_adapter(self, adapter: Adapter) -> None:
        self.adapters.setdefault(adapter.digest, adapter)

    def adapter(self, digest: str) -> Adapter | None:
        return self.adapters.get(digest)


class MemoryEvaluations(Evaluations):
    """`counts` holds every recorded progress."""

    def __init__(self) -> None:
        self.evaluations: dict[str, Evaluation] = {}
        self.outcomes: dict[str, EvaluationResult] = {}
        self.counts: list[int] = []

    def queue(self, evaluation_id: str, adapter: Adapter) -> Evaluation:
        return self.evaluations.setdefault(evaluation_id, Evaluation(evaluation_id, adapter))

    def find(self, evaluation_id: str) -> Evaluation | None:
        return self.evaluations.get(evaluation_id)

    def newest(self, adapter_digest: str) -> Evaluation | None:
        return next((e for e in reversed(self.evaluations.values()) if e.adapter.digest == adapter_digest), None)

    def trained_on(self, datasets: Sequence[str]) -> list[str]:
        return sorted(key for key, value in self.evaluations.items() if value.adapter.dataset_digest in datasets)

    def result(self, evaluation_id: str) -> EvaluationResult | None:
        return self.outcomes.get(evaluation_id)

    @contextmanager
    def claim(self, is_due: Callable[[Evaluation], bool]) -> Iterator[Evaluation | None]:
        claimed = next((e for e in self.evaluations.values() if self._is_open(e.evaluation_id) and is_due(e)), None)
        if claimed is not None:
            self._change(claimed.evaluation_id, attempts=claimed.attempts + 1)
            claimed = self.evaluations[claimed.evaluation_id]
        yield claimed

    def start(self, evaluation_id: str, rows_total: int) -> None:
        self._change(evaluation_id, state=EvaluationState.RUNNING, rows_total=rows_total)

    def count(self, evaluation_id: str, rows_done: int) -> None:
        self.counts.append(rows_done)
        self._change(evaluation_id, rows_done=rows_done)

    def fail(self, evaluation_id: str, reason: str) -> None:
        if self._is_open(evaluation_id):
            self._change(evaluation_id, state=EvaluationState.FAILED, reason=reason)

    def finish(self, result: EvaluationResult) -> None:
        self.outcomes.setdefault(result.evaluation.evaluation_id, result)
        self._change(result.evaluation.evaluation_id, state=EvaluationState.SUCCEEDED)

    def _is_open(self, evaluation_id: str) -> bool:
        return self.evaluations[evaluation_id].state in {EvaluationState.QUEUED, EvaluationState.RUNNING}

    def _change(self, evaluation_id: str, **changes: Any) -> None:
        self.evaluations[evaluation_id] = replace(self.evaluations[evaluation_id], **changes)


class MemoryModelResults(ModelResults):
    def __init__(self) -> None:
        self.results: dict[tuple[str, str, str], ModelResult] = {}

    def add(self, evaluation_id: str, model: str, key: str, result: ModelResult) -> None:
        self.results.setdefault((evaluation_id, model, key), result)

    def find(self, model: str, key: str, evaluation_id: str = "") -> ModelResult | None:
        ids = [evaluation_id] if evaluation_id else list(dict.fromkeys(name for name, *_ in self.results))
        return next((self.results[name, model, key] for name in ids if (name, model, key) in self.results), None)

    def delete(self, evaluation_id: str) -> int:
        keys = [key for key in self.results if key[0] == evaluation_id]
        for key in keys:
            del self.results[key]
        return len(keys)


class FakeModels(Models):
    """The base answers nothing useful; a candidate repeats the reference. Raises each of `failures` first, one per call."""

    def __init__(self) -> None:
        self.loaded: set[str] = set()
        self.calls: list[str] = []
        self.scored: list[str] = []
        self.samplings: list[SamplingDefaults] = []
        self.parity: float | None = 0.01
        self.failures: list[Exception] = []
        self.lock = threading.Lock()

    def load(self, adapter_digest: str, manifest: Ref) -> LoadedCandidate:
        self._fail()
        self.loaded.add(f"adapter:{adapter_digest}")
        return LoadedCandidate(f"adapter:{adapter_digest}", self.parity)

    def generate(self, model: str, messages: Sequence[tuple[str, str]], sampling: SamplingDefaults) -> Answer:
        with self.lock:
            self._fail()
            self.calls.append(model)
            self.samplings.append(sampling)
        if model == "base":
            return Answer("Nothing.", tokens=2, seconds=0.5)
        if model not in self.loaded:
            raise NotFound(Reason.UNKNOWN_MODEL, "There is no such model.")
        return Answer(f"line of sight {messages[-1][1].split()[1].rstrip('.')}", tokens=5, seconds=1.0)

    def score(self, model: str, messages: Sequence[tuple[str, str]], completion: str) -> Score:
        self.scored.append(model)
        if completion.startswith("rejected"):
            return Score(-4.0 if model == "base" else -6.0, 2)
        return Score(-4.0 if model == "base" else -2.0, 2)

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)


class MemoryHeldOutRows(HeldOutRows):
    def __init__(self, rows: Sequence[HeldOutRow]) -> None:
        self.rows = list(rows)
        self.by_manifest: dict[str, list[HeldOutRow]] = {}
        self.pairs: list[RankedPair] = []

    def held_out(self, manifest: Ref, max_rows: int, max_answers: int) -> HeldOutSet:
        every = self.by_manifest.get(manifest.uri, self.rows)
        rows, pairs = tuple(every[:max_rows]), sum(row.rejected is not None for row in every)
        answered = frozenset(row.row_id for row in rows[: max_answers or None])
        return HeldOutSet(rows, answered, len(every), total_pairs=pairs)

    def ranked_pairs(self, manifest: Ref, limit: int) -> list[RankedPair]:
        return self.pairs[:limit]


class MemoryAgreements(Agreements):
    def __init__(self) -> None:
        self.agreements: dict[str, Agreement] = {}

    def find(self, key: str) -> Agreement | None:
        return self.agreements.get(key)

    def add(self, key: str, agreement: Agreement) -> None:
        self.agreements.setdefault(key, agreement)


class MemoryDefinitions(DefinitionStore):
    def __init__(self) -> None:
        self.definitions: list[Definition] = []

    def freeze(self, terms: SpecialistTerms) -> list[Definition]:
        if not self.definitions or self.definitions[-1].digest != terms.definition_digest:
            frozen_at = datetime(2026, 3, len(self.definitions) + 1, tzinfo=UTC)
            self.definitions.append(Definition(terms.definition_digest, terms.revision, frozen_at))
        return list(self.definitions)


def make_worker(**changes: Any) -> Any:
    """A worker over fakes that knows one specialist and one dataset. Typed as Any so that tests can reach into the fakes."""
    artifacts, models = changes.get("artifacts") or MemoryArtifacts(), FakeModels()
    artifacts.add_dataset("data1", MANIFEST)
    rows = changes.get("rows") or MemoryHeldOutRows([make_row(number) for number in range(4)])
    judge = changes.pop("judge", None)
    values: dict[str, Any] = {
        "artifacts": artifacts,
        "evaluations": MemoryEvaluations(),
        "results": MemoryModelResults(),
        "models": models,
        "source": ServedModels(models),
        "rows": rows,
        "judging": JudgeBench(artifacts, rows, MemoryAgreements(), judge, changes.get("erased", frozenset())),
        "definitions": MemoryDefinitions(),
        "reports": ReportStore(MemoryStore()),
        "specialists": Specialists({"reports": make_terms()}),
        "parameters": Parameters(concurrency=2),
        "limits": RetryLimits(give_up_seconds=100, max_starts=3),
        "sleep": lambda seconds: None,
    }
    return EvaluationWorker(**(values | changes))


def silence() -> Unavailable:
    return Unavailable(Reason("INFERENCE_UNAVAILABLE"), "Down.")
