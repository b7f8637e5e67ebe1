"""Plans of evaluations: what the rows of a run can show, and what each condition of the gate needs."""

import math
from dataclasses import replace

import pytest

from services.registry.domain import (
    Evaluation,
    Gate,
    GuardMetric,
    Interval,
    MetricIntervals,
    PrimaryMetric,
    Specialist,
)
from services.registry.rules.plans import plan_evaluation
from tailor.values import EvaluationPolicy, MetricDefinition, RowPolicy

SPECIALIST = Specialist("reports", "base", "lora", gate=Gate(PrimaryMetric("log_likelihood", 0.05, 0.02)))


def gain(value: float, half: float, rows: int = 24) -> Interval:
    return Interval(value, value - half, value + half, rows)


def evaluated(**gains: dict[str, Interval]) -> Evaluation:
    metrics = {metric: MetricIntervals(metric, {}, found) for metric, found in gains.items()}
    return Evaluation("evl_1", "ad1", "reports", 24, metrics, {}, 1)


CLOSE = evaluated(log_likelihood={"base": gain(0.3, 0.07), "few_shot": gain(0.09, 0.07), "incumbent": gain(0.0, 0.06)})


def with_gate(**changes: object) -> Specialist:
    return replace(SPECIALIST, gate=replace(SPECIALIST.gate, **changes))  # type: ignore[arg-type]


def test_before_the_first_evaluation_a_plan_is_in_standard_deviations_and_asks_nothing_of_gains() -> None:
    plan = plan_evaluation(SPECIALIST, 100, 0, None)
    assert plan.visible_difference == pytest.approx(0.196, abs=1e-4)
    assert "standard deviations of the rows' gains (nothing was evaluated yet)" in plan.sentence
    assert (plan.needed_rows, plan.conditions) == (0, ())


def test_held_out_pairs_are_planned_for_by_their_margin() -> None:
    margins = evaluated(
        pair_margin={"base": gain(0.2, 0.5), "incumbent": gain(0.1, 0.08)},
        log_likelihood={"base": gain(0.3, 0.07), "incumbent": gain(0.0, 0.06)},
    )
    specialist = with_gate(primary=replace(SPECIALIST.gate.primary, metric=""))
    plan = plan_evaluation(specialist, 96, 6, margins)
    assert (plan.metric, plan.rows) == ("pair_margin", 6)
    assert plan.visible_difference == pytest.approx(0.16)
    assert plan.conditions[-2] == (
        "to pass, log_likelihood must gain more than about 0.085 over base, "
        "and pair_margin more than about 0.203 or log_likelihood more than about 0.054 over what serves"
    )
    # 24 * (1.144 * .08 / (.1 - .02))^2: with two metrics of which one decides, intervals are 2.241 instead of 1.96 standard errors wide.
    assert plan.needed_rows == 33
    assert "(+0.100 over what serves), about 33 rows would decide: have experts rank more drafts" in plan.conditions[-1]


def test_the_spread_of_the_newest_evaluation_says_what_a_candidate_must_gain_to_pass() -> None:
    plan = plan_evaluation(SPECIALIST, 96, 0, CLOSE)
    assert plan.visible_difference == pytest.approx(0.03) and plan.spread_rows == 24
    assert (
        "to pass, log_likelihood must gain more than about 0.085 over base, 0.085 over few_shot, 0.050 over what serves"
        in plan.conditions
    )


def test_a_gain_like_the_last_one_says_how_many_rows_would_decide() -> None:
    plan = plan_evaluation(SPECIALIST, 24, 0, CLOSE)
    assert plan.needed_rows == 75
    (sentence,) = [text for text in plan.conditions if text.startswith("if the candidate gains")]
    assert "(+0.300 over base, +0.090 over few_shot), about 75 rows would decide: publish more documents" in sentence
    enough = plan_evaluation(SPECIALIST, 120, 0, CLOSE)
    assert enough.conditions[-1].endswith("about 75 rows would decide")


def test_a_gain_at_the_limit_has_no_number_of_rows() -> None:
    plan = plan_evaluation(SPECIALIST, 24, 0, evaluated(log_likelihood={"base": gain(0.05, 0.07)}))
    assert plan.needed_rows == 0
    assert "no number of rows would decide" in plan.conditions[-1]


def test_a_gate_that_requires_more_rows_than_are_held_out_will_refuse() -> None:
    plan = plan_evaluation(with_gate(min_rows=50), 26, 4, None)
    assert plan.conditions[0].startswith("the gate requires 50 rows and 30 will be evaluated, so it will refuse")
    assert plan_evaluation(with_gate(min_rows=30), 26, 4, None).conditions == ()


def test_a_guard_that_the_answered_rows_cannot_decide_says_how_many_would() -> None:
    specialist = replace(
        with_gate(guards=(GuardMetric("rougeL", 0.02), GuardMetric("perplexity", 0.5))),
        evaluation=EvaluationPolicy(max_answers=12),
    )
    newest = evaluated(rougeL={"base": gain(0.1, 0.04, 12)}, perplexity={"base": gain(3, 0.4)})
    (sentence,) = plan_evaluation(specialist, 100, 0, newest).conditions
    assert (
        sentence == "the guard rougeL allows a loss of 0.02, and with 12 rows a difference below 0.040 cannot be seen; "
        "for an equal candidate about 50 rows would decide: raise `evaluation.max_answers`"
    )
    strict = replace(specialist, gate=replace(specialist.gate, guards=(GuardMetric("rougeL", 0.0),)))
    assert (
        plan_evaluation(strict, 100, 0, newest)
        .conditions[0]
        .endswith("only a candidate that is certainly not worse passes")
    )


@pytest.mark.parametrize(
    ("changes", "documents", "pairs", "advice"),
    [
        ({"evaluation": EvaluationPolicy(max_rows=20)}, 24, 0, "raise `evaluation.max_rows`"),
        ({"rows": RowPolicy(max_held_out_rows=26)}, 25, 0, "raise `rows.max_held_out_rows`"),
        ({}, 24, 0, "publish more documents; a higher `rows.held_out_percent` holds out more of the new ones"),
        ({"gate": Gate()}, 24, 5, "have experts rank more drafts or raise `rows.held_out_percent`"),
        (
            {
                "gate": Gate(PrimaryMetric("words")),
                "metrics": (MetricDefinition("words", "terms"),),
                "evaluation": EvaluationPolicy(max_answers=10),
            },
            24,
            0,
            "raise `evaluation.max_answers`",
        ),
    ],
)
def test_the_setting_that_limits_the_rows_is_named(
    changes: dict[str, object], documents: int, pairs: int, advice: str
) -> None:
    specialist = replace(SPECIALIST, **changes)  # type: ignore[arg-type]
    assert plan_evaluation(specialist, documents, pairs, None).sentence.endswith(advice)


def test_a_metric_of_scores_by_another_name_needs_no_answers() -> None:
    likelihood = MetricDefinition("likelihood", "log_likelihood")
    specialist = replace(
        SPECIALIST,
        gate=Gate(PrimaryMetric("likelihood")),
        metrics=(likelihood,),
        evaluation=EvaluationPolicy(max_answers=10),
    )
    assert plan_evaluation(specialist, 24, 0, None).rows == 24


def test_without_held_out_rows_the_gate_will_refuse() -> None:
    plan = plan_evaluation(SPECIALIST, 0, 0, None)
    assert plan.visible_difference == math.inf
    assert plan.sentence.startswith("no rows are held out for log_likelihood, so the gate will refuse")
