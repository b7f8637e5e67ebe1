"""When a canary is promoted, when it is withdrawn, and when it is too early to decide."""

from dataclasses import replace

import pytest

from services.registry.domain import Arm, CanaryPolicy, Outcome
from services.registry.rules.canary import decide_outcome, find_policy_violations

POLICY = CanaryPolicy(percent=10, min_calls=20, max_seconds=600, max_error_rate_increase=0.02, max_latency_ratio=1.5)
CANARY = Arm(20, 0, 3, first_token_seconds=0.2, token_seconds=0.02)
INCUMBENT = Arm(180, 0, 27, first_token_seconds=0.2, token_seconds=0.02)


def decide(canary: Arm = CANARY, incumbent: Arm = INCUMBENT, seconds: float = 60) -> tuple[Outcome, str]:
    verdict = decide_outcome(POLICY, canary, incumbent, seconds)
    return (Outcome.RUNNING, "") if verdict is None else (verdict.outcome, verdict.reason)


def test_a_canary_within_its_policy_is_promoted_with_its_figures() -> None:
    outcome, reason = decide(replace(CANARY, first_token_seconds=0.3, token_seconds=0.03))
    assert outcome is Outcome.FORWARD
    assert "0 of 20 calls failed" in reason
    assert "first token after 0.300 s, against 0.200 s" in reason and "each further token 0.030 s" in reason


@pytest.mark.parametrize(("canary", "incumbent"), [(19, 180), (20, 19), (0, 0)])
def test_it_is_undecided_before_both_arms_have_enough_calls(canary: int, incumbent: int) -> None:
    assert decide(replace(CANARY, calls=canary), replace(INCUMBENT, calls=incumbent))[0] is Outcome.RUNNING


def test_it_is_withdrawn_if_more_calls_fail_than_the_policy_allows() -> None:
    outcome, reason = decide(replace(CANARY, errors=1))
    assert outcome is Outcome.BACK
    assert "1 of 20 calls failed" in reason and "2.0% more" in reason


def test_calls_that_fail_in_both_arms_do_not_count_against_the_canary() -> None:
    assert decide(replace(CANARY, errors=2), replace(INCUMBENT, errors=18))[0] is Outcome.FORWARD


def test_many_errors_withdraw_it_at_once() -> None:
    assert decide(replace(CANARY, calls=4, errors=4))[0] is Outcome.RUNNING
    assert decide(replace(CANARY, calls=5, errors=5))[0] is Outcome.BACK
    assert decide(replace(CANARY, calls=5, errors=5), Arm())[0] is Outcome.BACK
    # The incumbent fails as often, so something else is broken.
    assert decide(replace(CANARY, calls=5, errors=5), Arm(5, 5))[0] is Outcome.RUNNING


@pytest.mark.parametrize(
    ("slower", "part"),
    [
        ({"first_token_seconds": 0.31}, "first token after 0.310 s"),
        ({"token_seconds": 0.031}, "each further token 0.031 s"),
    ],
)
def test_it_is_withdrawn_if_it_is_slower_than_the_policy_allows(slower: dict[str, float], part: str) -> None:
    outcome, reason = decide(replace(CANARY, **slower))  # type: ignore[arg-type]
    assert outcome is Outcome.BACK
    assert part in reason and "1.5 times as long" in reason


def test_it_is_withdrawn_if_it_never_answers_even_if_the_incumbent_does_not() -> None:
    silent = Arm(20, 20)
    assert decide(silent, replace(silent, calls=180, errors=180)) == (Outcome.BACK, "none of its calls was answered")


def test_answers_of_one_token_are_compared_by_the_first() -> None:
    assert decide(replace(CANARY, token_seconds=None), replace(INCUMBENT, token_seconds=None))[0] is Outcome.FORWARD


def test_too_few_calls_in_time_withdraw_it() -> None:
    few = Arm(7, 0, 1, 0.2, 0.02)
    assert decide(few, seconds=599)[0] is Outcome.RUNNING
    outcome, reason = decide(few, seconds=600)
    assert outcome is Outcome.BACK
    assert "undecided after 600 s: 7 calls by 1 keys" in reason and "180 by 27" in reason


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"percent": 0}, "percent"),
        ({"percent": 100}, "percent"),
        ({"min_calls": 0}, "min_calls"),
        ({"max_seconds": -1}, "max_seconds"),
        ({"max_error_rate_increase": float("nan")}, "max_error_rate_increase"),
        ({"max_error_rate_increase": 1.1}, "max_error_rate_increase"),
        ({"max_latency_ratio": 0.5}, "max_latency_ratio"),
        ({"max_latency_ratio": float("inf")}, "max_latency_ratio"),
    ],
)
def test_an_invalid_policy_names_the_field(change: dict[str, float], field: str) -> None:
    assert set(find_policy_violations(replace(POLICY, **change))) == {f"canary.{field}"}  # type: ignore[arg-type]
