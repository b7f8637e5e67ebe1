"""A reader's marks on what is replaced in manuals: how they are matched, counted and bounded."""

from dataclasses import replace

import pytest

from bench.anonymization_manuals import MANUALS, MARKS
from bench.manual_marks import RIGHT, WRONG, Marks, PieceCount, Replaced, context_of, interval, per_1000_words

NAME = Replaced("exim4-base", "spec.txt.gz", "PERSON", "Martin Guerre", "aaa")
ELSEWHERE = Replaced("exim4-base", "spec.txt.gz", "PERSON", "Martin Guerre", "bbb")
OTHER = Replaced("exim4-base", "spec.txt.gz", "PERSON", "Exim", "ccc")


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        ([(NAME, RIGHT)], (0, 0)),
        ([(NAME, WRONG)], (1, 0)),
        ([(ELSEWHERE, RIGHT)], (0, 0)),
        ([(ELSEWHERE, RIGHT), (replace(NAME, context="ddd"), WRONG)], (1, 1)),
        ([(OTHER, RIGHT)], (1, 1)),
        ([], (1, 1)),
    ],
)
def test_a_place_without_a_mark_is_wrong_unless_all_marks_of_its_string_agree(
    marks: list[tuple[Replaced, str]], expected: tuple[int, int]
) -> None:
    count = Marks(marks).count(100, [NAME])
    assert (count.wrong, count.unmarked) == expected


def test_the_context_is_the_words_around_a_place_whatever_the_space_between_them() -> None:
    texts = ["the old\n  Exim binary", "The **old** Exim binary", "the new Exim binary"]
    same, marked_up, other = (context_of(text, text.index("Exim"), text.index("Exim") + 4) for text in texts)
    assert same == marked_up != other


def test_false_alarms_are_counted_per_1000_words_with_an_interval_over_pieces() -> None:
    counts = [PieceCount(1_000, 4, 2, 0), PieceCount(1_000, 1, 0, 0), PieceCount(2_000, 9, 4, 1)]
    assert per_1000_words(counts) == 1.5
    low, high = interval(counts)
    assert 0 <= low < 1.5 < high <= 2


def test_the_committed_marks_are_of_the_sample_and_say_right_or_wrong() -> None:
    rows = [line.split("\t") for line in MARKS.read_text(encoding="utf-8").splitlines()]
    assert {row[4] for row in rows} == {RIGHT, WRONG}
    assert {row[0] for row in rows} <= {manual.package for manual in MANUALS}
    assert len(rows) == len({tuple(row) for row in rows}) > 100
