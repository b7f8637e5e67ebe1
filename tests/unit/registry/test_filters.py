from dataclasses import replace

import pytest

from services.registry import wire
from services.registry.domain import Specialist, check_specialist
from services.registry.filters import Filters
from services.registry.gate import Gate, Threshold
from tailor.errors import InvalidArgument


def specialist(filters: Filters) -> Specialist:
    return Specialist("reports", "smollm2", "lora", gate=Gate((Threshold("rougeL"),)), filters=filters)


@pytest.mark.parametrize(
    ("filters", "field"),
    [
        (Filters(languages=("en", "english")), "filters.languages[1]"),
        (Filters(languages=("EN",)), "filters.languages[0]"),
        (Filters(min_chars=-1), "filters.min_chars"),
        (Filters(min_chars=500, max_chars=400), "filters.max_chars"),
        (Filters(boilerplate_documents=1), "filters.boilerplate_documents"),
        (Filters(boilerplate_documents=-3), "filters.boilerplate_documents"),
        (Filters(max_source_documents=-1), "filters.max_source_documents"),
        (Filters(max_source_percent=101), "filters.max_source_percent"),
        (Filters(max_pairs_per_judgement=-1), "filters.max_pairs_per_judgement"),
    ],
)
def test_refuses_a_wrong_filter_with_its_field(filters: Filters, field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_specialist(specialist(filters))
    assert list(refused.value.field_violations) == [field]


@pytest.mark.parametrize(
    "filters", [Filters(), Filters(("en", "de"), 200, 200, 2, 1, 100, 6), Filters(min_chars=500), Filters(max_chars=9)]
)
def test_admits_filters_that_can_be_met_and_keeps_them_over_the_wire(filters: Filters) -> None:
    held = specialist(filters)
    check_specialist(held)
    assert wire.to_specialist(wire.from_specialist(held)) == held


def test_another_filter_is_another_definition() -> None:
    assert not specialist(Filters()).same_definition(specialist(Filters(min_chars=1)))


def test_keeps_what_a_specialist_says_of_its_prompts_and_drafts_over_the_wire() -> None:
    held = replace(specialist(Filters()), keep_drafts=True, private_prompts=True, preference_recipe="dpo")
    check_specialist(held)
    assert wire.to_specialist(wire.from_specialist(held)) == held


def test_refuses_a_recipe_for_preferences_that_is_no_name() -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_specialist(replace(specialist(Filters()), preference_recipe="../dpo"))
    assert list(refused.value.field_violations) == ["preference_recipe"]
