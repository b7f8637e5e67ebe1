"""Results and reports of erased documents."""

import json

import pytest

from services.evaluation.baselines.prompt_store import PromptStore
from services.evaluation.domain import EvaluationState, ModelResult
from services.evaluation.handlers import forget
from services.evaluation.report import ReportStore
from tailor.errors import FailedPrecondition
from tailor.events.erased import Erased
from tailor.storage.memory import MemoryStore
from tests.unit.evaluation.fakes import MemoryEvaluations, MemoryModelResults, make_adapter, make_worker


class World:
    """Two evaluations of an adapter that was trained on `data1`; each report quotes one document."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.reports = ReportStore(self.store)
        self.evaluations, self.results = MemoryEvaluations(), MemoryModelResults()
        for evaluation_id, document_id in (("evl_1", "doc_1"), ("evl_2", "doc_2")):
            self.evaluations.queue(evaluation_id, make_adapter())
            for model in ("base", "adapter:ad1", "adapter:ad0"):
                self.results.add(evaluation_id, model, "key", ModelResult((), ()))
            content = json.dumps({"rows": [{"document_ids": [document_id]}]}).encode()
            for name, data in (("report.json", content), ("report.md", b"#"), ("scores.png", b"png")):
                self.store.put("reports", f"{evaluation_id}/{name}", data)

    def forget(self, dataset: str) -> dict[str, int]:
        erased = Erased("doc_1", "ers_1", (dataset,))
        return dict(forget(self.evaluations, self.results, self.reports, PromptStore(self.store), erased).counts)


def test_a_report_that_quotes_the_document_is_deleted_with_the_answers_behind_it() -> None:
    world = World()
    assert world.forget("data1") == {"results": 3, "report_objects": 3, "prompts": 0}
    assert {key.split("/")[0] for _, key in world.store.objects} == {"evl_2"}
    states = {key: evaluation.state for key, evaluation in world.evaluations.evaluations.items()}
    assert states == {"evl_1": EvaluationState.FAILED, "evl_2": EvaluationState.QUEUED}
    assert world.forget("data1") == {"results": 0, "report_objects": 0, "prompts": 0}


def test_a_report_whose_prompts_quote_the_document_is_deleted() -> None:
    world = World()
    quoting = {"rows": [], "notes": {"few_shot": {"document_ids": ["doc_1"]}, "external:gpt": {"refused prompts": 1}}}
    world.store.put("reports", "evl_2/report.json", json.dumps(quoting).encode())
    assert world.forget("data1")["report_objects"] == 6


def test_reports_on_other_datasets_stay() -> None:
    world = World()
    world.forget("data2")
    assert len(world.store.objects) == 6


def test_rows_of_an_erased_document_are_not_evaluated() -> None:
    worker = make_worker(erased={"doc_0", "doc_1", "doc_2", "doc_3"})
    evaluation = worker.evaluations.queue("evl_1", make_adapter())
    with pytest.raises(FailedPrecondition, match="ROWS_ERASED"):
        worker.evaluate(evaluation)
