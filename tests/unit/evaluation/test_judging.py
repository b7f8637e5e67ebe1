"""The judge model in an evaluation: never the candidate, and counted only as far as it agrees with the experts."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from services.evaluation import wire
from services.evaluation.domain import EvaluationResult, RankedPair
from services.evaluation.figures import list_goals
from tailor.storage.ref import Ref
from tailor.values import EvaluationPolicy, MetricDefinition
from tests.unit.evaluation.fakes import make_adapter, make_terms, make_worker
from tests.unit.evaluation.metrics.judges import ScriptedJudge, part

RANKED = Ref("s3://datasets/pairs/manifest.json", "1" * 64, 10)
RUBRIC = MetricDefinition("marks", "judge")


def reply(question: str, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Marks by length, and compares by length."""
    names = schema["properties"]
    if "better" in names:
        return {"better": "first" if len(part(question, "FIRST")) > len(part(question, "SECOND")) else "second"}
    return dict.fromkeys(names, min(5, 1 + len(part(question, "ANSWER").split())))


def evaluate(
    judge: ScriptedJudge | None, metric: MetricDefinition, *pairs: RankedPair, **policy: Any
) -> tuple[EvaluationResult, Any]:
    terms = replace(make_terms(), metrics=(metric,), evaluation=EvaluationPolicy(**policy))
    worker = make_worker(judge=judge)
    worker.specialists.terms["reports"] = terms
    if pairs:
        worker.artifacts.add_dataset("pairs", RANKED, "reports")
        worker.rows.pairs = list(pairs)
    evaluation = worker.evaluations.queue("evl_1", make_adapter())
    return worker.evaluate(evaluation), worker


def pairs(count: int, *, agreeing: bool = True) -> list[RankedPair]:
    texts = ("a much longer draft", "short") if agreeing else ("short", "a much longer draft")
    return [RankedPair(f"row_{number}", (), f"prompt {number}", *texts) for number in range(count)]


def names(result: EvaluationResult) -> set[str]:
    return {figures.metric for figures in result.metrics}


@pytest.mark.parametrize("metric", [RUBRIC, MetricDefinition("wins", "judge", '{"mode": "pairwise"}')])
def test_a_judge_that_agrees_counts_and_its_agreement_stands_beside_the_score(metric: MetricDefinition) -> None:
    result, _ = evaluate(ScriptedJudge(reply), metric, *pairs(20))
    assert metric.name not in result.not_measured
    (agreement,) = [figures for figures in result.metrics if figures.metric == f"{metric.name}.agreement"]
    assert agreement.models["candidate"].value == 1.0
    assert agreement.models["candidate"].rows == 20


@pytest.mark.parametrize(("agreeing", "kappa"), [(True, 1.0), (False, -1.0)])
def test_key_insights_show_the_agreement_and_count_in_any_case(agreeing: bool, kappa: float) -> None:
    def read(question: str, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        if "findings" in schema["properties"]:
            return {"findings": [part(question, "TEXT")]}
        return reply(question, schema)

    insights = MetricDefinition("insights", "key_insights_f1")
    result, _ = evaluate(ScriptedJudge(read), insights, *pairs(20, agreeing=agreeing))
    (agreement,) = [figures for figures in result.metrics if figures.metric == "insights.agreement"]
    assert agreement.models["candidate"].value == kappa
    assert "insights" in names(result) and "insights" not in result.not_measured


def test_a_judge_that_contradicts_the_experts_is_shown_and_does_not_count() -> None:
    result, _ = evaluate(ScriptedJudge(reply), RUBRIC, *pairs(20, agreeing=False))
    assert "marks" in names(result)
    assert "kappa -1.00 over 20 pairs" in result.not_measured["marks"]


@pytest.mark.parametrize("count", [0, 9])
def test_without_judgements_the_agreement_is_unknown_and_the_metric_does_not_count(count: int) -> None:
    result, _ = evaluate(ScriptedJudge(reply), RUBRIC, *pairs(count))
    assert "marks" in names(result)
    assert f"{count} ranked pairs" in result.not_measured["marks"]


def test_the_minimum_is_the_specialists() -> None:
    result, _ = evaluate(ScriptedJudge(reply), RUBRIC, *pairs(20, agreeing=False), min_judge_agreement=-1.0)
    assert "marks" not in result.not_measured


@pytest.mark.parametrize("name", ["reports", "adapter:ad1", "adapter:other"])
def test_no_model_judges_its_own_answers(name: str) -> None:
    class Named(ScriptedJudge):
        @property
        def name(self) -> str:
            return name

    judge = Named(reply)
    result, _ = evaluate(judge, RUBRIC, *pairs(20))
    assert "marks" not in names(result)
    assert "TAILOR_JUDGE_MODEL" in result.not_measured["marks"]
    assert judge.questions == []


def test_without_a_judge_model_the_metric_is_not_measured() -> None:
    result, _ = evaluate(None, RUBRIC)
    assert "TAILOR_JUDGE_BASE_URL" in result.not_measured["marks"]


def test_the_agreement_is_measured_once_for_the_same_pairs() -> None:
    judge = ScriptedJudge(reply)
    _, worker = evaluate(judge, RUBRIC, *pairs(20))
    asked = len(judge.questions)
    worker.evaluate(worker.evaluations.queue("evl_2", make_adapter("ad2")))
    later = judge.questions[asked:]
    assert not [question for question in later if "prompt 3" in part(question, "REQUEST")]


def test_pairs_of_erased_documents_are_not_read() -> None:
    judge = ScriptedJudge(reply)
    ranked = [replace(pair, document_ids=("doc_gone",)) for pair in pairs(20)]
    terms = replace(make_terms(), metrics=(RUBRIC,))
    worker = make_worker(judge=judge, erased={"doc_gone"})
    worker.specialists.terms["reports"] = terms
    worker.artifacts.add_dataset("pairs", RANKED, "reports")
    worker.rows.pairs = ranked
    result = worker.evaluate(worker.evaluations.queue("evl_1", make_adapter()))
    assert "0 ranked pairs" in result.not_measured["marks"]


def test_metrics_and_gate_are_frozen_and_a_change_is_shown() -> None:
    worker = make_worker()
    worker.specialists.terms["reports"] = make_terms(definition_digest="first")
    first = worker.evaluate(worker.evaluations.queue("evl_1", make_adapter()))
    assert "frozen on 2026-03-01 at revision 1" in worker.reports.markdown(first.report)
    worker.specialists.terms["reports"] = replace(make_terms(definition_digest="second"), revision=4)
    second = worker.evaluate(worker.evaluations.queue("evl_2", make_adapter("ad2")))
    page = worker.reports.markdown(second.report)
    assert "frozen on 2026-03-02 at revision 4" in page
    assert "revision 1 of 2026-03-01" in page
    assert second.specialist_revision == 4
    assert [entry.revision for entry in wire.from_result(second).definitions] == [1, 4]
    assert wire.to_result(wire.from_result(second), second.evaluation).definitions == second.definitions


def test_goals_are_reached_missed_or_open_by_the_whole_interval() -> None:
    metric = MetricDefinition("rougeL", "rougeL", json.dumps({"goal": 0.9, "goal_gain": 2.0}))
    result, worker = evaluate(None, metric)
    states = {goal.is_gain: goal.state for goal in list_goals((metric,), result.metrics)}
    assert states == {False: "reached", True: "missed"}
    page = worker.reports.markdown(result.report)
    assert "| rougeL | value | 0.9 |" in page
    assert wire.to_result(wire.from_result(result), result.evaluation).goals == result.goals


def test_lower_is_better_goals_are_reached_from_above() -> None:
    metric = MetricDefinition("perplexity", "perplexity", json.dumps({"goal": 100.0}))
    result, _ = evaluate(None, metric)
    assert [goal.state for goal in list_goals((metric,), result.metrics)] == ["reached"]


def test_the_judge_models_tokens_of_an_evaluation_are_reported_without_those_of_earlier_ones() -> None:
    judge = ScriptedJudge(reply)
    first, _ = evaluate(judge, RUBRIC, *pairs(20))
    asked = len(judge.questions)
    second, _ = evaluate(judge, RUBRIC, *pairs(20))
    assert (first.judge_tokens, second.judge_tokens) == (100 * asked, 100 * (len(judge.questions) - asked))
    assert asked > 0
    without, _ = evaluate(None, MetricDefinition("rougeL", "rougeL"))
    assert without.judge_tokens == 0
