"""Marks of a text's structure, also in texts that were written to make reading slow."""

import time

import pytest

from services.synthetic.rows.facts import _NUMBER
from services.synthetic.rows.structure import HEADING


@pytest.mark.parametrize(
    ("line", "level", "title"),
    [
        ("# Position", "#", "Position"),
        ("## A b ##", "##", "A b"),
        ("###### C#", "######", "C"),
        ("#  D  e", "#", "D  e"),
    ],
)
def test_a_heading_has_a_level_and_a_title(line: str, level: str, title: str) -> None:
    match = HEADING.match(line)
    assert match is not None and match.groups() == (level, title)


@pytest.mark.parametrize("line", ["#", "#x", "####### x", "# " + "long " * 300])
def test_other_lines_are_no_headings(line: str) -> None:
    assert HEADING.match(line) is None


def test_numbers_are_found_with_the_words_around_them() -> None:
    assert _NUMBER.findall("EUR1,200.50 v2 ab_3 none x9-y") == ["EUR1,200.50", "v2", "3", "x9-y"]


def test_reading_takes_time_in_proportion_to_the_length() -> None:
    began = time.process_time()
    # Hours, if the time grew by the square.
    assert HEADING.match("# a" + " " * 1_000_000 + "b") is None
    assert _NUMBER.findall("a" * 1_000_000) == []
    assert time.process_time() - began < 5
