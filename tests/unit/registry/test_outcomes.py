"""The rules of what drafts were worth."""

import math
import random
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.registry.domain import Draft
from services.registry.outcome_domain import DraftOutcome, FinalText
from services.registry.rules.outcomes import (
    MAX_WORDS,
    MedianEstimate,
    check_outcome,
    estimate_median,
    find_specialist_of,
    measure_edit_retention,
    summarize_by_generation,
    summarize_by_week,
    week_of,
)
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
    assert measure_edit_retention(draft, final) == share


def test_the_share_kept_is_that_of_the_textbook_algorithm() -> None:
    first, second = "abcbdabcabdbcadbcab" * 5, "bdcabacbdabbcabdcab" * 4
    row = [0] * (len(second) + 1)
    for letter in first:
        diagonal = 0
        for place, other in enumerate(second, start=1):
            diagonal, row[place] = row[place], diagonal + 1 if letter == other else max(row[place], row[place - 1])
    assert measure_edit_retention(" ".join(first), " ".join(second)) == row[-1] / len(first)


def test_texts_of_the_greatest_length_are_compared_within_seconds() -> None:
    text = " ".join(str(number % 997) for number in range(2 * MAX_WORDS))
    begin = time.process_time()
    assert measure_edit_retention(text, text) == 1.0
    assert time.process_time() - begin < 10


def script_outcomes() -> tuple[list[DraftOutcome], list[FinalText]]:
    """20 outcomes of the baseline, and 30 of two generations in two weeks."""
    outcomes = [DraftOutcome(f"out_b{n}", "", "memos", 60.0 + n, 2 + n % 2, NOW) for n in range(20)]
    finals = []
    for n in range(30):
        generation, moment = 1 + n // 15, NOW + timedelta(days=7 * (n // 15))
        outcomes.append(
            DraftOutcome(f"out_{n}", f"drf_{n}", "memos", 10.0 + n, 5, moment, generation, f"ad{generation}")
        )
        share = n / 30 if n % 2 else None
        finals.append(FinalText(f"drf_{n}", f"doc_{n}", "memos", generation, f"ad{generation}", share, moment))
    return outcomes, finals


def test_fifty_scripted_outcomes_give_the_known_medians() -> None:
    second, first, baseline = summarize_by_generation(*script_outcomes())
    assert [item.generation for item in (second, first, baseline)] == [2, 1, 0]
    # Of 20 values the interval is the 6th to the 15th, of 15 the 4th to the 12th (tables of the sign test).
    assert baseline.minutes == MedianEstimate(20, 69.5, 65.0, 74.0)
    assert first.minutes == MedianEstimate(15, 17.0, 13.0, 21.0)
    assert second.minutes == MedianEstimate(15, 32.0, 28.0, 36.0)
    assert (baseline.satisfaction.median, first.satisfaction.median) == (2.5, 5.0)
    assert first.edit_retention == MedianEstimate(7, 7 / 30, 1 / 30, 13 / 30)
    assert (first.deliverables, second.deliverables, baseline.deliverables) == (15, 15, 0)
    assert (first.adapter_digest, baseline.adapter_digest, first.week) == ("ad1", "", None)


def test_weeks_begin_on_a_monday_and_come_newest_first() -> None:
    monday = datetime(2026, 4, 27, tzinfo=UTC)
    assert week_of(NOW) == monday == week_of(monday) != week_of(monday - timedelta(microseconds=1))
    weekly = [(item.week, item.generation) for item in summarize_by_week(*script_outcomes())]
    assert weekly == [(monday + timedelta(days=7), 2), (monday, 1), (monday, 0)]


def test_a_median_needs_six_values_for_an_interval() -> None:
    assert estimate_median([]) == MedianEstimate(0)
    assert estimate_median([3.0, 1.0, 2.0, 5.0, 4.0]) == MedianEstimate(5, 3.0)
    assert estimate_median([3.0, 1.0, 2.0, 5.0, 4.0, 6.0]) == MedianEstimate(6, 3.5, 1.0, 6.0)


def test_an_interval_covers_the_median_as_often_as_it_says() -> None:
    drawn = random.Random(3)
    covered = 0
    for _ in range(2000):
        estimate = estimate_median([drawn.expovariate(1.0) for _ in range(25)])
        assert estimate.low is not None and estimate.high is not None
        covered += estimate.low <= math.log(2) <= estimate.high
    assert 0.945 <= covered / 2000 <= 0.975


def test_a_hundred_thousand_outcomes_are_summarized_within_seconds() -> None:
    begin = time.process_time()
    assert estimate_median([float(n) for n in range(100_000)]).count == 100_000
    assert time.process_time() - begin < 5


@pytest.mark.parametrize(("count", "rank"), [(1000, 469), (1001, 470), (2000, 956)])
def test_long_intervals_have_the_ranks_of_the_binomial_distribution(count: int, rank: int) -> None:
    estimate = estimate_median([float(n + 1) for n in range(count)])
    assert estimate.low is not None and abs(estimate.low - rank) <= 1
