"""The monthly budget of a specialist's definition, and its limit of training hours."""

from dataclasses import replace

import pytest

from services.registry.domain import Gate, PrimaryMetric, Specialist
from services.registry.rules.checks import check_specialist
from services.registry.wire import from_specialist, to_specialist
from tailor.errors import InvalidArgument

SPECIALIST = Specialist(
    "reports", "tiny", "lora", gate=Gate(PrimaryMetric("rougeL")), monthly_budget=200.0, max_training_hours=0.5
)


def test_a_budget_and_a_limit_of_hours_go_through_the_contract_unchanged() -> None:
    check_specialist(SPECIALIST)
    assert to_specialist(from_specialist(SPECIALIST)) == SPECIALIST


@pytest.mark.parametrize("field", ["monthly_budget", "max_training_hours"])
@pytest.mark.parametrize("amount", [-1.0, float("nan"), float("inf")])
def test_a_limit_that_is_no_amount_is_refused(field: str, amount: float) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_specialist(replace(SPECIALIST, **{field: amount}))  # type: ignore[arg-type]
    assert list(refused.value.field_violations) == [field]
