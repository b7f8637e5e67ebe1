"""Names in a definition of a specialist."""

from dataclasses import replace

import pytest

from services.registry.domain import Gate, PrimaryMetric, Specialist
from services.registry.rules.checks import check_specialist
from tailor.errors import InvalidArgument

MEMOS = Specialist("memos", "tiny", "lora", gate=Gate(PrimaryMetric("rougeL"), min_rows=1))


@pytest.mark.parametrize(
    "name", ["", "base", "base\n", "memos\n", "-memos", "Memos", "me mos", "memos\u0661", "../x", "a" * 64]
)
def test_a_specialist_needs_a_plain_name(name: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_specialist(replace(MEMOS, name=name))
    assert "name" in refused.value.field_violations


@pytest.mark.parametrize(
    ("field", "wrong"), [("base", replace(MEMOS, base="tiny\n")), ("recipe", replace(MEMOS, recipe="tiny\n"))]
)
def test_names_of_base_and_recipe_end_with_their_last_letter(field: str, wrong: Specialist) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_specialist(wrong)
    assert field in refused.value.field_violations
