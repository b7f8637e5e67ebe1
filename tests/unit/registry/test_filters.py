"""A specialist's filters and options: checked, and unchanged over the wire."""

from dataclasses import replace

import pytest

from services.registry import wire
from services.registry.domain import Specialist
from services.registry.rules.checks import check_specialist
from tailor.errors import InvalidArgument
from tailor.values import Filters


def specialist(filters: Filters) -> Specialist:
    return Specialist("reports", "smollm2", "lora", filters=filters)


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
def test_refuses_an_invalid_filter_with_its_field(filters: Filters, field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_specialist(specialist(filters))
    assert list(refused.value.field_violations) == [field]


@pytest.mark.parametrize(
    "filters", [Filters(), Filters(("en", "de"), 200, 200, 2, 1, 100, 6), Filters(min_chars=500), Filters(max_chars=9)]
)
def test_admits_valid_filters_and_keeps_them_over_the_wire(filters: Filters) -> None:
    definition = specialist(filters)
    check_specialist(definition)
    assert wire.to_specialist(wire.from_specialist(definition)) == definition


def test_another_filter_is_another_definition() -> None:
    assert not specialist(Filters()).same_definition(specialist(Filters(min_chars=1)))


def test_keeps_options_for_prompts_and_drafts_over_the_wire() -> None:
    definition = replace(specialist(Filters()), keep_drafts=True, private_prompts=True, stages=("sft", "dpo"))
    check_specialist(definition)
    assert wire.to_specialist(wire.from_specialist(definition)) == definition
