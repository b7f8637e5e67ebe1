"""The suites of an evaluation, run by the worker over fakes."""

import json
import threading
from typing import Any

import pytest

from services.evaluation import handlers
from services.evaluation.baselines.prompt_store import PromptStore
from services.evaluation.domain import BASE, CANDIDATE, EvaluationResult
from services.evaluation.suites.runner import SuiteRunner
from services.evaluation.suites.suite import read_items
from services.evaluation.wire import from_result
from tailor.document_scores import DocumentScore, read_scores
from tailor.errors import FailedPrecondition, Reason, Unavailable
from tailor.events.erased import Erased
from tailor.storage.buckets import REPORTS
from tailor.storage.memory import MemoryStore
from tailor.values import EvaluationPolicy
from tests.unit.evaluation.fakes import (
    MemoryEvaluations,
    MemoryModelResults,
    make_adapter,
    make_terms,
    make_worker,
)
from tests.unit.evaluation.suites.probes import MemoryProbes

ITEMS = 16


class World:
    """A worker with suites; a specialist that limits them."""

    def __init__(self, *suites: str, erased: frozenset[str] = frozenset()) -> None:
        self.probes = MemoryProbes()
        results = MemoryModelResults()
        terms = make_terms(evaluation=EvaluationPolicy(suites=suites, max_suite_items=ITEMS))
        self.worker: Any = make_worker(
            results=results, suites=SuiteRunner(self.probes, results, 2, erased, lambda _: None)
        )
        self.worker.specialists.terms["reports"] = terms

    def evaluate(self, evaluation_id: str = "evl_1") -> EvaluationResult:
        evaluations: MemoryEvaluations = self.worker.evaluations
        handlers.queue_evaluation(self.worker.artifacts, evaluations, make_adapter(), evaluation_id)
        assert self.worker.evaluate_next(threading.Event())
        return evaluations.outcomes[evaluation_id]

    def report(self) -> Any:
        return json.loads(self.worker.reports._store.read(REPORTS, "evl_1/report.json"))


def test_every_suite_runs_unless_the_specialist_names_some() -> None:
    suites = {figures.metric.partition(".")[0] for figures in World().evaluate().suites}
    assert suites == {"parity", "forgetting", "safety", "memorisation", "knowledge"}
    suites = {figures.metric.partition(".")[0] for figures in World("safety").evaluate().suites}
    assert suites == {"parity", "safety"}


def test_a_measure_has_both_models_and_the_candidates_gain_over_the_base() -> None:
    figures = {found.metric: found for found in World().evaluate().suites}
    text = figures["forgetting.text"]
    assert (text.models[BASE].value, text.models[CANDIDATE].value) == (-2.0, -1.0)
    assert text.gains[BASE].value == 1.0
    assert figures["memorisation.memorised"].models[CANDIDATE].value == 1
    assert figures["memorisation.memorised"].gains[BASE].value == -1
    assert figures["knowledge.learned"].models[CANDIDATE].value == 1


def test_what_was_not_measured_has_its_reason() -> None:
    assert World().evaluate().not_measured["memorisation.exposure"] == "No secret was planted."


def test_scores_of_documents_are_stored_and_named_in_the_event() -> None:
    world = World("knowledge")
    result = world.evaluate()
    message = from_result(result)
    stored = world.worker.reports._store.get(result.document_scores)
    (scores,) = read_scores(stored)
    assert scores == [DocumentScore("doc_0", 1, 1, 0, 0), DocumentScore("doc_1", 1, 1, 0, 0)]
    assert message.document_scores.uri == f"s3://{REPORTS}/evl_1/document_scores.jsonl"
    assert not from_result(World("safety").evaluate()).HasField("document_scores")


def test_questions_about_an_erased_document_are_not_asked() -> None:
    world = World("knowledge", erased=frozenset({"doc_1"}))
    result = world.evaluate()
    (scores,) = read_scores(world.worker.reports._store.get(result.document_scores))
    assert [score.document_id for score in scores] == ["doc_0"]


def test_an_erasure_deletes_the_scores_that_name_the_document_and_keeps_the_report() -> None:
    world = World("knowledge")
    world.worker.rows.rows = world.worker.rows.rows[2:]
    world.evaluate()
    worker = world.worker
    for document_id, deleted in (("doc_9", 0), ("doc_1", 1), ("doc_1", 0)):
        forgotten = handlers.forget(
            worker.evaluations,
            worker.results,
            worker.reports,
            PromptStore(MemoryStore()),
            Erased(document_id, "ers_1", ("data1",)),
        )
        assert forgotten.counts["report_objects"] == deleted
    assert world.report()["suites"]


def test_the_report_has_the_seconds_of_each_suite_and_the_details() -> None:
    world = World("memorisation", "safety")
    world.evaluate()
    assert list(world.report()["suite_seconds"]) == ["safety", "memorisation"]
    assert world.report()["suite_details"]["memorisation"]["true_values"] == {"PERSON": 1}
    assert "The suites took: safety" in world.worker.reports.markdown(world.worker.evaluations.outcomes["evl_1"].report)


def test_the_base_is_asked_once_for_all_evaluations_and_the_candidate_in_each() -> None:
    world = World("forgetting", "safety")
    world.evaluate("evl_1")
    calls = list(world.worker.models.calls)
    world.evaluate("evl_2")
    again = world.worker.models.calls[len(calls) :]
    assert again.count("base") == 0
    assert again.count("adapter:ad1") == calls.count("adapter:ad1")


def test_an_interrupted_evaluation_continues_and_answers_about_documents_are_not_stored() -> None:
    world = World("safety", "memorisation")
    world.probes.failures = [Unavailable(Reason("ANONYMIZATION_UNAVAILABLE"), "Down.")]
    result = world.evaluate()
    assert len(world.probes.asked) == 2
    safety = ITEMS
    prompts = [call for call in world.worker.models.calls if call == "base"]
    # Four rows; each item of safety once; the train prompt twice.
    assert len(prompts) == 4 + safety + 2
    assert result.suites
    stored = [answer.text for found in world.worker.results.results.values() for answer in found.answers if answer]
    assert "line of sight 7" not in stored


def test_a_suite_that_cannot_be_measured_is_skipped_with_its_reason() -> None:
    world = World("memorisation", "safety")
    world.probes.failures = [FailedPrecondition(Reason.INVALID_DATASET, "Build it again.")]
    result = world.evaluate()
    assert result.not_measured["memorisation"] == "INVALID_DATASET: Build it again."
    assert {figures.metric.partition(".")[0] for figures in result.suites} == {"parity", "safety"}


@pytest.mark.parametrize("name", ["forgetting", "safety"])
def test_a_limit_bounds_what_each_model_is_asked(name: str) -> None:
    world = World(name)
    world.evaluate()
    models = world.worker.models
    for model in ("base", "adapter:ad1"):
        asked = models.calls.count(model) - 4
        scored = models.scored.count(model) - 4
        requests = scored // 4 if name == "safety" else 0
        assert asked + (0 if name == "safety" else scored) == ITEMS
        assert requests <= len(read_items("harmful"))
