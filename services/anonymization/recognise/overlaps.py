"""Looking up whether a place overlaps any of many stretches, in logarithmic time."""

from bisect import bisect_left
from collections.abc import Iterable


class Stretches:
    """Stretches [start, end) of a text."""

    def __init__(self, places: Iterable[tuple[int, int]]) -> None:
        joined: list[tuple[int, int]] = []
        for start, end in sorted(places):
            if joined and start < joined[-1][1]:
                joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
            else:
                joined.append((start, end))
        self._starts = [start for start, _ in joined]
        self._ends = [end for _, end in joined]

    def overlap(self, start: int, end: int) -> bool:
        """True if [start, end) overlaps any of them."""
        before = bisect_left(self._starts, end) - 1
        return before >= 0 and self._ends[before] > start
