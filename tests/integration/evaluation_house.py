"""Evaluation over PostgreSQL: its worker with its jobs, events and calls; models are fakes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, cast

from sqlalchemy import Engine

from services.evaluation.adapters import tables
from services.evaluation.adapters.rows import StoredHeldOutRows
from services.evaluation.adapters.sql import (
    EVALUATION,
    SqlArtifacts,
    SqlDefinitions,
    SqlEvaluations,
    SqlModelResults,
)
from services.evaluation.baselines.prompt_store import PromptStore
from services.evaluation.bootstrap import MIGRATIONS
from services.evaluation.consumers import Consumers
from services.evaluation.domain import (
    Adapter,
    Agreement,
    AnnouncedDataset,
    Evaluation,
    EvaluationResult,
    EvaluationState,
    HeldOutRow,
    RetryLimits,
    Serving,
    Specialists,
)
from services.evaluation.handlers import forget, queue_evaluation
from services.evaluation.judging import JudgeBench
from services.evaluation.ports import JudgeModel
from services.evaluation.report import ReportStore
from services.evaluation.rpc import EvaluationServicer
from services.evaluation.served_models import list_served_models
from services.evaluation.suites.runner import SuiteRunner
from services.evaluation.worker import EvaluationWorker
from tailor.datasets import HELD_OUT
from tailor.events.erased import Erased
from tailor.events.memory import MemoryProducer
from tailor.events.outbox import Outbox
from tailor.jobs import JobKind, Jobs
from tailor.rows import Rows
from tailor.sql import connect
from tailor.storage.memory import MemoryStore
from tailor.storage.ref import Ref
from tests.databases import Databases, fill
from tests.datasets import store_dataset
from tests.jobs import make_due, run_due
from tests.unit.evaluation.fakes import (
    FakeModels,
    make_adapter,
    make_pair,
    make_row,
    make_terms,
)
from tests.unit.evaluation.suites.probes import MemoryProbes

CONTEXT = cast(Any, None)


def make_serving(digest: str = "ad0", generation: int = 1) -> Serving:
    return Serving("reports", generation, digest, Ref(f"s3://models/adapters/{digest}/manifest.json", digest, 1))


class House:
    """A replica of evaluation that knows one specialist and one dataset. `changes` are fields of its worker."""

    def __init__(
        self,
        engine: Engine,
        *,
        judge: JudgeModel | None = None,
        probes: MemoryProbes | None = None,
        erased: frozenset[str] = frozenset(),
        rows: int = 4,
        **changes: Any,
    ) -> None:
        self.engine, self.store, self.producer = engine, MemoryStore(), MemoryProducer("evaluation")
        self.outbox = Outbox(engine, tables.outbox, self.producer)
        self.artifacts, self.evaluations = SqlArtifacts(engine), SqlEvaluations(engine, self.outbox)
        self.results, self.reports = SqlModelResults(engine), ReportStore(self.store)
        self.models, self.rows = FakeModels(), StoredHeldOutRows(self.store)
        self.specialists = Specialists({"reports": make_terms()})
        self.store_rows("data1", [make_row(number) for number in range(rows)])
        values: dict[str, Any] = {
            "artifacts": self.artifacts,
            "evaluations": self.evaluations,
            "results": self.results,
            "models": self.models,
            "list_models": self.list_served,
            "rows": self.rows,
            "judging": JudgeBench(self.artifacts, self.rows, Rows(engine, tables.agreements, Agreement), judge, erased),
            "definitions": SqlDefinitions(engine),
            "reports": self.reports,
            "specialists": self.specialists,
            "concurrency": 2,
            "limits": RetryLimits(give_up_seconds=100, max_starts=3),
            "erased": erased,
            "suites": SuiteRunner(probes, self.results, 2, lambda _: None) if probes else None,
            "sleep": lambda _: None,
        }
        self.consumers = Consumers(self.artifacts, self.evaluations, self.specialists)
        self.servicer = EvaluationServicer(self.artifacts, self.evaluations, self.reports)
        self.employ(EvaluationWorker(**(values | changes)))

    def list_served(self, adapter: Adapter, terms: object, incumbent: Serving | None, _: object) -> Any:
        return list_served_models(self.models, adapter, incumbent)

    def employ(self, worker: EvaluationWorker) -> None:
        """Have another worker run the jobs."""
        self.worker, self.jobs = worker, Jobs(self.engine, tables.jobs, [JobKind(EVALUATION, worker.run)])

    def queue(self, evaluation_id: str = "evl_1", digest: str = "ad1", **changes: Any) -> Adapter:
        adapter = make_adapter(digest, **changes)
        queue_evaluation(self.artifacts, self.evaluations, adapter, evaluation_id)
        return adapter

    def run(self) -> bool:
        """Run the job that is due; False if there is none."""
        return run_due(self.jobs) == 1

    def look_again(self) -> None:
        """Have what waits for an event look for it now."""
        make_due(self.engine, tables.jobs)

    def evaluate(self, evaluation_id: str = "evl_1", digest: str = "ad1", **changes: Any) -> EvaluationResult:
        self.queue(evaluation_id, digest, **changes)
        assert self.run()
        result = self.evaluations.result(evaluation_id)
        assert result is not None, self.find(evaluation_id).reason
        return result

    def find(self, evaluation_id: str = "evl_1") -> Evaluation:
        evaluation = self.evaluations.newest(evaluation_id=evaluation_id)
        assert evaluation is not None
        return evaluation

    def outcome(self, evaluation_id: str = "evl_1") -> tuple[EvaluationState, str]:
        evaluation = self.find(evaluation_id)
        return evaluation.state, evaluation.reason

    def page(self, result: EvaluationResult) -> str:
        """The report for people."""
        return self.reports.markdown(result.report)

    def change_terms(self, **changes: Any) -> None:
        self.specialists.terms["reports"] = replace(self.specialists.terms["reports"], **changes)

    def add_pairs(self, digest: str, ranked_for: str = "", count: int = 6) -> None:
        """Store and announce a dataset with held-out pairs."""
        self.store_rows(digest, [make_pair(number) for number in range(count)], ranked_for)

    def store_rows(self, digest: str, rows: Sequence[HeldOutRow], ranked_for: str = "", split: str = HELD_OUT) -> Ref:
        """Store and announce a dataset with these rows."""
        manifest, _ = store_dataset(self.store, {split: [to_record(row) for row in rows]})
        self.artifacts.datasets.add(AnnouncedDataset(digest, manifest, ranked_for))
        return manifest

    def forget(self, document_id: str, dataset: str) -> dict[str, int]:
        """Handle an erasure; what was deleted."""
        erased = Erased(document_id, "ers_1", (dataset,))
        prompts = PromptStore(self.store)
        return dict(forget(self.evaluations, self.results, self.reports, prompts, erased).counts)

    def published(self) -> list[Any]:
        while self.outbox.relay():
            pass
        return list(self.producer.messages("adapter.evaluated.v1"))


MakeHouse = Callable[..., House]


@contextmanager
def houses(databases: Databases) -> Iterator[MakeHouse]:
    """Makes houses, each with a database."""
    with ExitStack() as stack:

        def make(**changes: Any) -> House:
            url = databases.create()
            stack.callback(databases.drop, url)
            fill(url, MIGRATIONS)
            engine = connect(url)
            stack.callback(engine.dispose)
            return House(engine, **changes)

        yield make


def to_record(row: HeldOutRow) -> dict[str, Any]:
    """A row of a stored dataset."""
    messages = [{"role": role, "content": content} for role, content in row.messages]
    answer = {"role": "assistant", "content": row.reference}
    record = {"row_id": row.row_id, "task": row.task, "document_ids": list(row.document_ids)}
    if row.rejected is None:
        return {**record, "messages": [*messages, answer]}
    return {**record, "messages": messages, "chosen": row.reference, "rejected": row.rejected}


def value(result: EvaluationResult, metric: str, model: str) -> float:
    (figures,) = (figures for figures in (*result.metrics, *result.suites) if figures.metric == metric)
    return figures.models[model].value


def models_of(result: EvaluationResult) -> set[str]:
    return set(result.metrics[0].models)
