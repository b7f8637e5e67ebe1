"""The spans of a text whose values were replaced."""

import pytest

from services.anonymization.domain import Action, Change, apply_changes, move_spans
from tailor.values import Span, SpanKind

TEXT = "Ngozi signs.\n\nOkafor reads, and Ngozi too."
PAGE = TEXT.index("Okafor")


def change(start: int, end: int, replacement: str) -> Change:
    return Change(start, end, "PERSON", Action.SURROGATE, replacement)


def page(start: int, end: int) -> Span:
    return Span(SpanKind.PAGE, 1, start, end)


@pytest.mark.parametrize("surrogate", ["Al", "Ngoni", "Bartholomew"])
def test_a_page_keeps_its_beginning_for_surrogates_of_any_length(surrogate: str) -> None:
    changes = [
        change(0, 5, surrogate),
        change(PAGE, PAGE + 6, "Ward"),
        change(TEXT.rindex("Ngozi"), len(TEXT) - 5, surrogate),
    ]
    after = TEXT.replace("Ngozi", surrogate).replace("Okafor", "Ward")
    assert apply_changes(TEXT, changes) == after
    first, second = move_spans([page(0, PAGE - 2), page(PAGE, len(TEXT))], changes)
    assert after[first.start : first.end] == f"{surrogate} signs."
    assert after[second.start : second.end] == f"Ward reads, and {surrogate} too."


def test_a_value_over_a_page_break_belongs_to_the_page_before() -> None:
    changes = [change(PAGE, PAGE + 6, "Bartholomew")]
    first, second = move_spans([page(0, PAGE + 3), page(PAGE + 3, len(TEXT))], changes)
    after = TEXT.replace("Okafor", "Bartholomew")
    assert after[first.start : first.end].endswith("Bartholomew")
    assert after[second.start : second.end] == " reads, and Ngozi too."


def test_a_span_within_a_replaced_value_is_dropped() -> None:
    assert move_spans([page(PAGE + 1, PAGE + 4)], [change(PAGE, PAGE + 6, "Ward")]) == ()


def test_without_changes_spans_stay() -> None:
    spans = (page(0, 5), page(5, 9))
    assert move_spans(spans, []) == spans


def test_changes_that_touch_stay_apart() -> None:
    assert apply_changes("AbCd", [change(0, 2, "x"), change(2, 4, "yz")]) == "xyz"
    assert apply_changes("nothing here", []) == "nothing here" and apply_changes("", []) == ""
