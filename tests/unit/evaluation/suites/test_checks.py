"""Each check of an instruction, with answers that follow it and answers that do not."""

from typing import Any

import pytest

from services.evaluation.suites.forgetting import CHECKS, passes
from services.evaluation.suites.suite import read_items


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        ({"check": "contains_any", "words": ["Paris"]}, "It is paris.", "It is Comparis."),
        ({"check": "contains_all", "words": ["red", "blue"]}, "Blue and red", "red"),
        ({"check": "excludes", "words": ["hot"]}, "The sun shines.", "The sun is hot."),
        ({"check": "in_order", "words": ["A", "B"]}, "A, B", "B, A"),
        ({"check": "in_order", "words": ["1", "2"]}, "1\n2", "12"),
        ({"check": "count", "word": "river", "min": 3, "max": 3}, "River river river", "river river"),
        ({"check": "words", "min": 2, "max": 3}, "two words", "one"),
        ({"check": "sentences", "min": 1, "max": 1}, "One of 2.5 metres.", "One. Two."),
        ({"check": "bullets", "min": 2, "max": 2}, "- one\n2. two", "- one"),
        ({"check": "ends_with", "text": "!"}, "Hello!", "Hello."),
        ({"check": "upper_case"}, "THE SEA 1", "The SEA"),
        ({"check": "last_number", "value": 42}, "6 times 7 is 42.", "42 is 6 times 7"),
        ({"check": "last_number", "value": 1000}, "It is 1,000.", "It is 1."),
        ({"check": "contains_number", "value": 12}, "There are twelve months.", "There are 121."),
        ({"check": "json", "keys": ["name"]}, '```json\n{"name": "Ada"}\n```', '{"name": "Ada", "age": 1}'),
        ({"check": "json", "keys": ["name"]}, '{"name": 1}', 'Here it is: {"name": 1}'),
        ({"check": "json", "length": 2}, "[1, 2]", "[1]"),
    ],
)
def test_a_check_accepts_a_right_answer_and_no_wrong_one(check: dict[str, Any], right: str, wrong: str) -> None:
    assert passes(right, [check])
    assert not passes(wrong, [check])


def test_an_empty_answer_passes_no_check() -> None:
    assert not passes(" \n", [{"check": "excludes", "words": ["hot"]}])


def test_every_instruction_has_checks_that_exist() -> None:
    items = read_items("instructions")
    assert len(items) >= 60
    assert len({item.item_id for item in items}) == len(items)
    assert {check["check"] for item in items for check in item.content["checks"]} <= set(CHECKS)
    assert all(item.content["checks"] and item.content["max_tokens"] > 0 for item in items)


@pytest.mark.parametrize(
    "answer", ["", "and and and and and and and and and and", "The 1 the 1 the 1", "\n\n\n", "?" * 80]
)
def test_a_looping_answer_follows_almost_no_instruction(answer: str) -> None:
    items = read_items("instructions")
    assert sum(passes(answer, item.content["checks"]) for item in items) <= 0.02 * len(items)
