"""Canaries that outcomes decide."""

import math
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.registry.domain import EDIT_RETENTION, MINUTES, SATISFACTION, Arm, CanaryPolicy, Outcome
from services.registry.rules.canary import decide_outcome, find_policy_violations
from services.registry.rules.canary_outcomes import OutcomeValue, _student, compare_outcomes, summarize_reports

START = datetime(2026, 5, 4, tzinfo=UTC)
POLICY = CanaryPolicy(min_calls=20, max_seconds=600, outcome=EDIT_RETENTION, min_reports=20, max_outcome_loss=0.1)
CANARY, INCUMBENT = Arm(20, 0, 3, 0.2, 0.02), Arm(180, 0, 27, 0.2, 0.02)


def reports(values: list[float], *, seconds: float = 60) -> list[OutcomeValue]:
    """One report after another."""
    return [OutcomeValue(value, START + timedelta(seconds=place * seconds)) for place, value in enumerate(values)]


def spread(mean: float, count: int) -> list[float]:
    """Values around a mean, whose every even number has just this mean."""
    return [mean + (0.1 if place % 2 else -0.1) for place in range(count)]


def test_a_canary_that_is_certainly_not_worse_is_promoted_with_the_figures() -> None:
    compared = compare_outcomes(POLICY, reports(spread(0.72, 20)), reports(spread(0.7, 200), seconds=5))
    assert compared.outcome is Outcome.FORWARD
    assert "share of the draft kept 72.0% in 20 reports, against 70.0% in 200: a gain of +2.0% (" in compared.reason
    assert "the policy allows a loss of 10.0%" in compared.reason


def test_a_canary_that_is_certainly_worse_is_withdrawn_before_it_has_its_calls() -> None:
    worse = (reports(spread(0.3, 20)), reports(spread(0.7, 20)))
    assert compare_outcomes(POLICY, *worse).outcome is Outcome.BACK
    verdict = decide_outcome(POLICY, replace(CANARY, calls=19), INCUMBENT, 60, worse)
    assert verdict is not None and verdict.outcome is Outcome.BACK and "-40.0%" in verdict.reason


@pytest.mark.parametrize(("canary", "incumbent"), [(19, 200), (200, 19), (0, 0)])
def test_too_few_reports_of_an_arm_decide_nothing(canary: int, incumbent: int) -> None:
    arms = (reports(spread(0.9, canary)), reports(spread(0.1, incumbent)))
    compared = compare_outcomes(POLICY, *arms)
    assert compared.outcome is None
    assert (
        f"{canary} reports of share of the draft kept, against {incumbent}; the policy requires 20" in compared.reason
    )
    assert decide_outcome(POLICY, CANARY, INCUMBENT, 599, arms) is None
    late = decide_outcome(POLICY, CANARY, INCUMBENT, 600, arms)
    assert late is not None and late.outcome is Outcome.BACK
    assert late.reason.startswith("undecided after 600 s: ") and "requires 20" in late.reason


def test_reports_that_show_nothing_leave_it_undecided_until_the_end() -> None:
    loose = [0.0, 1.0, 0.9, 0.1] * 5
    arms = (reports(loose), reports(loose))
    assert compare_outcomes(POLICY, *arms).outcome is None
    assert decide_outcome(POLICY, CANARY, INCUMBENT, 60, arms) is None
    late = decide_outcome(POLICY, CANARY, INCUMBENT, 600, arms)
    assert late is not None and "a gain of +0.0%" in late.reason


def test_a_promotion_needs_calls_and_outcomes() -> None:
    better = (reports(spread(0.9, 20)), reports(spread(0.7, 20)))
    assert decide_outcome(POLICY, replace(CANARY, calls=19), INCUMBENT, 60, better) is None
    promoted = decide_outcome(POLICY, CANARY, INCUMBENT, 60, better)
    assert promoted is not None and promoted.outcome is Outcome.FORWARD
    assert "0 of 20 calls failed" in promoted.reason and "share of the draft kept 90.0%" in promoted.reason
    slow = decide_outcome(POLICY, replace(CANARY, first_token_seconds=9.0), INCUMBENT, 60, better)
    assert slow is not None and slow.outcome is Outcome.BACK


def test_later_reports_do_not_change_an_earlier_look() -> None:
    better, worse = spread(0.9, 20), spread(0.1, 19)
    compared = compare_outcomes(POLICY, reports([*better, *worse]), reports(spread(0.7, 400), seconds=10))
    assert compared.outcome is Outcome.FORWARD and "90.0% in 20 reports" in compared.reason


def test_marks_that_are_all_the_same_are_not_certain() -> None:
    policy = replace(POLICY, outcome=SATISFACTION, max_outcome_loss=0.2)
    same = (reports([5.0] * 20), reports([5.0] * 20))
    assert compare_outcomes(policy, *same).outcome is None
    many = (reports([5.0] * 160), reports([5.0] * 160))
    assert compare_outcomes(policy, *many).outcome is Outcome.FORWARD


def test_minutes_are_compared_by_their_ratio_and_fewer_are_better() -> None:
    policy = replace(POLICY, outcome=MINUTES, max_outcome_loss=0.1)
    fast, slow = [20.0, 30.0] * 20, [40.0, 60.0] * 20
    compared = compare_outcomes(policy, reports(fast), reports(slow))
    assert compared.outcome is Outcome.FORWARD and "a gain of +50.0%" in compared.reason
    assert compare_outcomes(policy, reports(slow), reports(fast)).outcome is Outcome.BACK
    assert summarize_reports(MINUTES, [10.0, 1000.0]) == pytest.approx(100.0)
    assert summarize_reports(SATISFACTION, [3.0, 5.0]) == 4.0 and summarize_reports(MINUTES, []) is None


def test_chance_decides_at_most_one_canary_in_twenty_however_long_it_runs() -> None:
    drawn = random.Random(11)
    forward = back = 0
    for _ in range(600):
        ours = [drawn.betavariate(2, 2) - 0.1 for _ in range(320)]
        theirs = [drawn.betavariate(2, 2) for _ in range(320)]
        outcome = compare_outcomes(POLICY, reports(ours), reports(theirs)).outcome
        forward += outcome is Outcome.FORWARD
        back += outcome is Outcome.BACK
    # The loss is exactly what the policy allows, so that every decision is a wrong one.
    assert forward / 600 <= 0.05 and back / 600 <= 0.05
    assert (forward + back) / 600 <= 0.07


@pytest.mark.parametrize(
    ("probability", "freedom", "quantile"),
    [(0.975, 10, 2.22814), (0.9875, 19, 2.43344), (0.995, 30, 2.74999), (0.99, 9, 2.82144)],
)
def test_quantiles_are_those_of_the_table(probability: float, freedom: float, quantile: float) -> None:
    assert math.isclose(_student(probability, freedom), quantile, rel_tol=0.002)


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({}, []),
        ({"outcome": "", "max_outcome_loss": 0.0}, []),
        ({"outcome": ""}, ["canary.max_outcome_loss"]),
        ({"outcome": "mood"}, ["canary.outcome"]),
        ({"min_reports": 9}, ["canary.min_reports"]),
        ({"max_outcome_loss": 0.0}, ["canary.max_outcome_loss"]),
        ({"max_outcome_loss": float("nan")}, ["canary.max_outcome_loss"]),
    ],
)
def test_invalid_policies_are_refused_by_field(changes: dict[str, object], fields: list[str]) -> None:
    assert list(find_policy_violations(replace(POLICY, **changes))) == fields  # type: ignore[arg-type]
