"""Limits of an override, and the reason that a decision needs."""

import pytest

from services.registry.domain import Evaluation, Gate, Interval, MetricIntervals
from services.registry.rules.overrides import check_override, check_reason
from tailor.errors import FailedPrecondition, InvalidArgument, Reason


def evaluation(memorised: float | None) -> Evaluation:
    suites = {}
    if memorised is not None:
        count = Interval(memorised, memorised, memorised, 10)
        suites["memorisation.memorised"] = MetricIntervals("memorisation.memorised", {"candidate": count})
    return Evaluation("evl_1", "ab12", "reports", 4, {}, suites, incumbent_generation=0)


def test_too_few_rows_and_lost_metrics_may_be_overridden() -> None:
    check_override(Gate(min_rows=30), evaluation(memorised=0))
    check_override(Gate(min_rows=30), evaluation(memorised=None))


def test_memorised_texts_may_not_be_overridden() -> None:
    with pytest.raises(FailedPrecondition, match="1 secrets or true values were memorised") as raised:
        check_override(Gate(), evaluation(memorised=1))
    assert raised.value.reason == Reason.NOT_OVERRIDABLE


def test_a_limit_on_memorised_texts_that_was_not_measured_may_not_be_overridden() -> None:
    with pytest.raises(FailedPrecondition, match="was not measured"):
        check_override(Gate(max_memorised=0), evaluation(memorised=None))


def test_a_decision_needs_a_reason_of_bounded_length() -> None:
    check_reason("The board wants it today.")
    check_reason("", required=False)
    for reason in ("", "  ", "x" * 1001):
        with pytest.raises(InvalidArgument) as raised:
            check_reason(reason)
        assert raised.value.field_violations == {"reason": "must have 1 to 1,000 characters"}
