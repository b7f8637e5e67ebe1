"""When a canary goes forward, when back, and when it is too early to say."""

from dataclasses import replace

import pytest

from services.registry.comparing import Arm, CanaryRules, Outcome, verdict, violations

RULES = CanaryRules(percent=10, min_calls=20, max_seconds=600, max_error_rate_increase=0.02, max_latency_ratio=1.5)
TRIED = Arm(20, 0, 3, first_token_seconds=0.2, token_seconds=0.02)
BESIDE = Arm(180, 0, 27, first_token_seconds=0.2, token_seconds=0.02)


def outcome(tried: Arm = TRIED, beside: Arm = BESIDE, seconds: float = 60) -> tuple[Outcome, str]:
    found = verdict(RULES, tried, beside, seconds)
    return (Outcome.RUNNING, "") if found is None else (found.outcome, found.reason)


def test_what_keeps_to_the_rules_goes_forward_and_says_how_it_compared() -> None:
    decided, why = outcome(replace(TRIED, first_token_seconds=0.3, token_seconds=0.03))
    assert decided is Outcome.FORWARD
    assert "0 of 20 calls failed beside 0 of 180" in why
    assert "first token after 0.300 s beside 0.200 s" in why and "each further one 0.030 s beside 0.020 s" in why


@pytest.mark.parametrize(("tried", "beside"), [(19, 180), (20, 19), (0, 0)])
def test_it_is_undecided_before_both_arms_have_their_calls(tried: int, beside: int) -> None:
    assert outcome(replace(TRIED, calls=tried), replace(BESIDE, calls=beside))[0] is Outcome.RUNNING


def test_more_failed_calls_than_the_rules_allow_send_it_back() -> None:
    decided, why = outcome(replace(TRIED, errors=1))
    assert decided is Outcome.BACK
    assert "1 of 20 calls failed beside 0 of 180" in why and "2.0% more" in why


def test_calls_that_fail_in_both_arms_are_not_the_canarys_fault() -> None:
    assert outcome(replace(TRIED, errors=2), replace(BESIDE, errors=18))[0] is Outcome.FORWARD


def test_errors_that_pile_up_send_it_back_at_once() -> None:
    assert outcome(replace(TRIED, calls=4, errors=4))[0] is Outcome.RUNNING
    assert outcome(replace(TRIED, calls=5, errors=5))[0] is Outcome.BACK
    assert outcome(replace(TRIED, calls=5, errors=5), Arm())[0] is Outcome.BACK
    # As many fail beside it: something else is broken.
    assert outcome(replace(TRIED, calls=5, errors=5), Arm(5, 5))[0] is Outcome.RUNNING


@pytest.mark.parametrize(
    ("slower", "named"),
    [
        ({"first_token_seconds": 0.31}, "first token after 0.310 s"),
        ({"token_seconds": 0.031}, "each further one 0.031 s"),
    ],
)
def test_what_answers_later_than_the_rules_allow_goes_back(slower: dict[str, float], named: str) -> None:
    decided, why = outcome(replace(TRIED, **slower))  # type: ignore[arg-type]
    assert decided is Outcome.BACK
    assert named in why and "1.5 times as long" in why


def test_what_never_answered_goes_back_even_where_nothing_else_does() -> None:
    silent = Arm(20, 20)
    assert outcome(silent, replace(silent, calls=180, errors=180)) == (Outcome.BACK, "none of its calls was answered")


def test_answers_of_one_token_are_compared_by_the_first() -> None:
    assert outcome(replace(TRIED, token_seconds=None), replace(BESIDE, token_seconds=None))[0] is Outcome.FORWARD


def test_too_few_calls_at_the_end_send_it_back_and_are_told() -> None:
    few = Arm(7, 0, 1, 0.2, 0.02)
    assert outcome(few, seconds=599)[0] is Outcome.RUNNING
    decided, why = outcome(few, seconds=600)
    assert decided is Outcome.BACK
    assert "undecided after 600 s: 7 calls of 1 keys beside 180 of 27, the rules want 20 of each arm" in why


@pytest.mark.parametrize(
    ("wrong", "field"),
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
def test_wrong_rules_are_named_by_field(wrong: dict[str, float], field: str) -> None:
    assert set(violations(replace(RULES, **wrong))) == {f"canary.{field}"}  # type: ignore[arg-type]
