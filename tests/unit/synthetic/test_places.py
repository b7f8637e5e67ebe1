"""Ranges of a document's text."""

from services.synthetic.rows.ranges import count_characters, find_spans, merge_ranges, subtract_ranges
from tailor.values import Span, SpanKind

PAGES = (Span(SpanKind.PAGE, 1, 0, 50), Span(SpanKind.PAGE, 2, 50, 100))
SECTIONS = (
    Span(SpanKind.SECTION, 1, 0, 100, 1),
    Span(SpanKind.SECTION, 2, 20, 60, 2),
    Span(SpanKind.SECTION, 3, 60, 100, 2),
)


def names(spans: tuple[Span, ...]) -> list[tuple[str, int]]:
    return [(span.kind, span.number) for span in spans]


def test_ranges_that_touch_or_overlap_are_joined() -> None:
    assert merge_ranges([(5, 9), (0, 3), (3, 4), (8, 12), (20, 20)]) == ((0, 4), (5, 12))


def test_ranges_are_subtracted() -> None:
    assert subtract_ranges([(0, 10), (20, 30)], [(2, 4), (8, 22), (29, 40)]) == ((0, 2), (4, 8), (22, 29))
    assert subtract_ranges([(0, 10)], []) == ((0, 10),)
    assert subtract_ranges([(0, 10)], [(0, 10)]) == ()


def test_characters_are_counted_once_and_without_blanks() -> None:
    assert count_characters("ab c\n d", [(0, 4), (1, 7)]) == 4


def test_of_each_kind_the_smallest_containing_span_or_all_overlapping() -> None:
    assert names(find_spans((*PAGES, *SECTIONS), 21, 30)) == [("page", 1), ("section", 2)]
    assert names(find_spans((*PAGES, *SECTIONS), 40, 59)) == [("page", 1), ("section", 2), ("page", 2)]
    assert names(find_spans((*PAGES, *SECTIONS), 55, 70)) == [("section", 1), ("page", 2)]
