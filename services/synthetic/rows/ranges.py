"""Ranges of a document's text: joining, subtracting and counting them, and the parts of the file that hold them."""

from collections.abc import Iterable, Sequence

from services.synthetic.domain import Range
from tailor.values import Span


def merge_ranges(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """The ranges in order, without empty ones; those that overlap or touch are joined."""
    merged: list[Range] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        elif start < end:
            merged.append((start, end))
    return tuple(merged)


def subtract_ranges(ranges: Iterable[Range], removed: Iterable[Range]) -> tuple[Range, ...]:
    """What is left of the ranges outside of the removed ones."""
    cuts, left = merge_ranges(removed), []
    place = 0
    for first, end in merge_ranges(ranges):
        start = first
        while place < len(cuts) and cuts[place][1] <= start:
            place += 1
        number = place
        while number < len(cuts) and cuts[number][0] < end:
            left.append((start, cuts[number][0]))
            start = cuts[number][1]
            number += 1
        left.append((start, end))
    return tuple((start, end) for start, end in left if start < end)


def count_characters(text: str, ranges: Iterable[Range]) -> int:
    """The characters of the ranges that are not blank, each counted once."""
    return sum(len("".join(text[start:end].split())) for start, end in merge_ranges(ranges))


def find_spans(spans: Sequence[Span], start: int, end: int) -> tuple[Span, ...]:
    """Of each kind, the smallest span that contains [start, end), or else all spans that it overlaps."""
    overlapping: dict[str, list[Span]] = {}
    for span in spans:
        if span.start < end and start < span.end:
            overlapping.setdefault(span.kind, []).append(span)
    result: list[Span] = []
    for group in overlapping.values():
        containing = [span for span in group if span.start <= start and end <= span.end]
        result += [min(containing, key=lambda span: span.end - span.start)] if containing else group
    return tuple(sorted(result, key=lambda span: (span.start, -span.end, span.kind)))
