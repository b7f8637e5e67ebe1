"""The judge model in an evaluation: never the candidate, and counted only as far as it agrees with the experts."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from services.evaluation import wire
from services.evaluation.domain import EvaluationResult, HeldOutRow
from services.evaluation.figures import list_goals
from tailor.datasets import TRAIN
from tailor.values import EvaluationPolicy, MetricDefinition
from tests.databases import Databases
from tests.integration.evaluation_house import House, MakeHouse, houses
from tests.unit.evaluation.metrics.judges import ScriptedJudge, part

pytestmark = pytest.mark.integration

RUBRIC = MetricDefinition("marks", "judge")
INSIGHTS = MetricDefinition("insights", "key_insights_f1")


@pytest.fixture
def make_house(databases: Databases) -> Iterator[MakeHouse]:
    with houses(databases) as make:
        yield make


def reply(question: str, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Marks by length, and compares by length."""
    names = schema["properties"]
    if "findings" in names:
        return {"findings": [part(question, "TEXT")]}
    if "better" in names:
        return {"better": "first" if len(part(question, "FIRST")) > len(part(question, "SECOND")) else "second"}
    return dict.fromkeys(names, min(5, 1 + len(part(question, "ANSWER").split())))


def pairs(count: int, *, agreeing: bool = True, document_ids: tuple[str, ...] = ("doc_9",)) -> list[HeldOutRow]:
    chosen, rejected = ("a much longer draft", "short") if agreeing else ("short", "a much longer draft")
    row = HeldOutRow("", "draft", document_ids, (), chosen, rejected=rejected)
    return [replace(row, row_id=f"row_{number}", messages=(("user", f"prompt {number}"),)) for number in range(count)]


def evaluate(
    house: House, number: int, metrics: tuple[MetricDefinition, ...], ranked: list[HeldOutRow], **policy: Any
) -> EvaluationResult:
    """Evaluate with a judge whose agreement is measured on a dataset of these pairs."""
    house.change_terms(metrics=metrics, evaluation=EvaluationPolicy(**policy))
    if ranked:
        house.store_rows(f"pairs{number}", ranked, "reports", TRAIN)
    return house.evaluate(f"evl_{number}", f"ad{number}")


def agreement_of(result: EvaluationResult, metric: str) -> tuple[float, int]:
    (agreement,) = [figures for figures in result.metrics if figures.metric == f"{metric}.agreement"]
    return agreement.models["candidate"].value, agreement.models["candidate"].rows


def names(result: EvaluationResult) -> set[str]:
    return {figures.metric for figures in result.metrics}


def test_a_judge_counts_as_far_as_it_agrees_with_the_experts(make_house: MakeHouse) -> None:
    wins = MetricDefinition("wins", "judge", '{"mode": "pairwise"}')
    judge = ScriptedJudge(reply)
    house = make_house(judge=judge)
    # Without judgements, or with too few, the agreement is unknown.
    for number, count in enumerate((0, 9), 1):
        result = evaluate(house, number, (RUBRIC,), pairs(count))
        assert "marks" in names(result) and f"{count} ranked pairs" in result.not_measured["marks"]
    result = evaluate(house, 3, (RUBRIC, wins, INSIGHTS), pairs(20))
    for metric in (RUBRIC, wins, INSIGHTS):
        assert agreement_of(result, metric.name) == (1.0, 20) and metric.name not in result.not_measured
    # It is measured once for the same pairs.
    asked = len(judge.questions)
    house.evaluate("evl_again", "ad_again")
    assert not [question for question in judge.questions[asked:] if "prompt 3" in part(question, "REQUEST")]
    # Key insights count in any case.
    result = evaluate(house, 4, (RUBRIC, INSIGHTS), pairs(20, agreeing=False))
    assert {"marks", "insights"} <= names(result) and "insights" not in result.not_measured
    assert agreement_of(result, "insights")[0] == -1.0
    assert "kappa -1.00 over 20 pairs" in result.not_measured["marks"]
    # The minimum is the specialist's.
    assert "marks" not in evaluate(house, 5, (RUBRIC,), [], min_judge_agreement=-1.0).not_measured


@pytest.mark.parametrize("name", ["reports", "adapter:ad1", "adapter:other"])
def test_no_model_judges_its_own_answers(make_house: MakeHouse, name: str) -> None:
    class Named(ScriptedJudge):
        @property
        def name(self) -> str:
            return name

    judge = Named(reply)
    result = evaluate(make_house(judge=judge), 1, (RUBRIC,), pairs(20))
    assert "marks" not in names(result)
    assert "TAILOR_JUDGE_MODEL" in result.not_measured["marks"]
    assert judge.questions == []


def test_pairs_of_erased_documents_are_not_read(make_house: MakeHouse) -> None:
    house = make_house(judge=ScriptedJudge(reply), erased=frozenset({"doc_gone"}))
    result = evaluate(house, 1, (RUBRIC,), pairs(20, document_ids=("doc_gone",)))
    assert "0 ranked pairs" in result.not_measured["marks"]


def test_the_judge_models_tokens_are_those_of_one_evaluation(make_house: MakeHouse) -> None:
    judge = ScriptedJudge(reply)
    house = make_house(judge=judge)
    first = evaluate(house, 1, (RUBRIC,), pairs(20))
    asked = len(judge.questions)
    second = evaluate(house, 2, (RUBRIC,), pairs(20))
    assert (first.judge_tokens, second.judge_tokens) == (100 * asked, 100 * (len(judge.questions) - asked))
    assert asked > 0
    without = evaluate(make_house(), 1, (RUBRIC,), [])
    assert without.judge_tokens == 0 and "TAILOR_JUDGE_BASE_URL" in without.not_measured["marks"]


def test_metrics_and_gate_are_frozen_and_a_change_is_shown(make_house: MakeHouse) -> None:
    house = make_house()
    house.change_terms(definition_digest="first")
    page = house.page(house.evaluate())
    assert "at revision 1" in page
    house.change_terms(definition_digest="second", revision=4)
    second = house.evaluate("evl_2", "ad2")
    page = house.page(second)
    assert "at revision 4" in page and "revision 1 of " in page
    assert second.specialist_revision == 4
    assert [entry.revision for entry in wire.from_result(second).definitions] == [1, 4]
    assert wire.to_result(wire.from_result(second), second.evaluation).definitions == second.definitions


def test_goals_are_reached_missed_or_open_by_the_whole_interval(make_house: MakeHouse) -> None:
    higher = MetricDefinition("rougeL", "rougeL", json.dumps({"goal": 0.9, "goal_gain": 2.0}))
    lower = MetricDefinition("perplexity", "perplexity", json.dumps({"goal": 100.0}))
    house = make_house()
    result = evaluate(house, 1, (higher, lower), [])
    states = {(goal.metric, goal.is_gain): goal.state for goal in list_goals((higher, lower), result.metrics)}
    assert states == {("rougeL", False): "reached", ("rougeL", True): "missed", ("perplexity", False): "reached"}
    assert "| rougeL | value | 0.9 |" in house.page(result)
    assert wire.to_result(wire.from_result(result), result.evaluation).goals == result.goals
