"""The rules of what drafts were worth."""

import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from services.registry.domain import Draft
from services.registry.outcome_domain import DraftOutcome
from services.registry.rules.kept_share import MAX_WORDS, measure_kept_share
from services.registry.rules.outcomes import check_outcome, find_specialist_of
from tailor.errors import InvalidArgument

NOW = datetime(2026, 5, 1, tzinfo=UTC)
WORTH = DraftOutcome("out_1", "drf_1", "", 25.0, 4, NOW)
DRAFT = Draft("drf_1", "memos", "ad" * 32, "", "key_1")


@pytest.mark.parametrize(
    ("changes", "request_id"),
    [
        ({}, ""),
        ({"minutes": 0}, ""),
        ({"satisfaction": 0, "minutes": 100_000}, "x" * 128),
        ({"draft_id": "", "specialist": "memos"}, "a"),
    ],
)
def test_valid_outcomes_are_admitted(changes: dict[str, Any], request_id: str) -> None:
    check_outcome(replace(WORTH, **changes), request_id)


@pytest.mark.parametrize(
    ("changes", "request_id", "field", "hint"),
    [
        ({"minutes": -1}, "", "minutes", "at most 100,000"),
        ({"minutes": 100_001}, "", "minutes", "at most 100,000"),
        ({"minutes": float("nan")}, "", "minutes", "at most 100,000"),
        ({"minutes": float("inf")}, "", "minutes", "at most 100,000"),
        ({"satisfaction": 6}, "", "satisfaction", "1 to 5"),
        ({"satisfaction": -1}, "", "satisfaction", "1 to 5"),
        ({"minutes": 0, "satisfaction": 0}, "", "minutes", "if there is no satisfaction"),
        ({}, "x" * 129, "request_id", "at most 128"),
        ({"draft_id": "", "specialist": "memos"}, "", "request_id", "without a draft"),
        ({"draft_id": ""}, "a", "specialist", "without a draft"),
    ],
)
def test_invalid_outcomes_are_refused_by_field(changes: dict[str, Any], request_id: str, field: str, hint: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_outcome(replace(WORTH, **changes), request_id)
    assert refused.value.reason == "INVALID_OUTCOME"
    assert hint in refused.value.field_violations[field]
    assert len(refused.value.field_violations) == 1


def test_an_outcome_counts_for_the_specialist_of_its_draft() -> None:
    assert find_specialist_of(WORTH, DRAFT) == "memos"
    assert find_specialist_of(replace(WORTH, specialist="memos"), DRAFT) == "memos"
    assert find_specialist_of(replace(WORTH, specialist="memos"), replace(DRAFT, specialist="")) == "memos"
    for outcome, draft in ((replace(WORTH, specialist="others"), DRAFT), (WORTH, replace(DRAFT, specialist=""))):
        with pytest.raises(InvalidArgument) as refused:
            find_specialist_of(outcome, draft)
        assert list(refused.value.field_violations) == ["specialist"]


@pytest.mark.parametrize(
    ("draft", "final", "share"),
    [
        ("The staff rest at night.", "the staff\nrest, at night", 1.0),
        ("The staff rest at night.", "The staff must rest daily at night, too.", 1.0),
        ("The staff rest at night.", "At night the staff rest.", 0.6),
        ("one two three four", "one four", 0.5),
        ("one two three four", "", 0.0),
        ("one one one one", "one", 0.25),
        ("…", "one", None),
        ("", "one", None),
    ],
)
def test_the_share_kept_counts_the_drafts_words_in_order(draft: str, final: str, share: float | None) -> None:
    assert measure_kept_share(draft, final) == share


def test_the_share_kept_is_that_of_the_textbook_algorithm() -> None:
    first, second = "abcbdabcabdbcadbcab" * 5, "bdcabacbdabbcabdcab" * 4
    row = [0] * (len(second) + 1)
    for letter in first:
        diagonal = 0
        for place, other in enumerate(second, start=1):
            diagonal, row[place] = row[place], diagonal + 1 if letter == other else max(row[place], row[place - 1])
    assert measure_kept_share(" ".join(first), " ".join(second)) == row[-1] / len(first)


def test_texts_of_the_greatest_length_are_compared_within_seconds() -> None:
    text = " ".join(str(number % 997) for number in range(2 * MAX_WORDS))
    begin = time.process_time()
    assert measure_kept_share(text, text) == 1.0
    assert time.process_time() - begin < 10
