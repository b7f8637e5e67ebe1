"""The limit on the time of one text."""

import math

import pytest

from services.anonymization.recognise import budget
from tailor.errors import DeadlineExceeded


def test_without_a_limit_nothing_is_checked() -> None:
    budget.check()


def test_a_spent_limit_ends_the_work() -> None:
    with budget.limit(-1), pytest.raises(DeadlineExceeded) as ended:
        budget.check()
    assert ended.value.reason == "TEXT_TOO_SLOW"
    budget.check()


def test_an_inner_limit_does_not_lengthen_an_outer_one() -> None:
    with budget.limit(-1), budget.limit(100), pytest.raises(DeadlineExceeded):
        budget.check()


def test_a_caller_that_has_gone_ends_the_work() -> None:
    gone = [False]
    with budget.limit(math.inf, lambda: gone[0]), budget.limit(100):
        budget.check()
        gone[0] = True
        with pytest.raises(DeadlineExceeded):
            budget.check()
