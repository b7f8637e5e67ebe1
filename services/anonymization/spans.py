"""Spans of a text through its anonymisation: surrogates are longer or shorter than what they stand for."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Protocol


@dataclass(frozen=True)
class Span:
    """The stretch [start, end) of a text, in characters, that was a page, a section or the like. `kind` travels on unchanged."""

    kind: int
    number: int
    level: int
    start: int
    end: int


class Replaced(Protocol):
    """What stood at [start, end) of a text, and what stands there now."""

    @property
    def start(self) -> int:
        """Where it began."""
        ...

    @property
    def end(self) -> int:
        """Where it ended."""
        ...

    @property
    def replacement(self) -> str:
        """What stands there now."""
        ...


def moved(spans: Sequence[Span], changes: Sequence[Replaced]) -> tuple[Span, ...]:
    """The spans of the changed text; `changes` are in order and do not overlap. Where a span begins or ends within a replaced value, the
    whole of the value belongs to what stood before; a span of which nothing is left is dropped."""
    starts = [change.start for change in changes]
    growth = list(accumulate((len(each.replacement) - (each.end - each.start) for each in changes), initial=0))

    def place(offset: int) -> int:
        # Changes that begin before the offset have moved it.
        before = bisect.bisect_left(starts, offset)
        if before and changes[before - 1].end > offset:
            offset = changes[before - 1].end
        return offset + growth[before]

    found = (replace(span, start=place(span.start), end=place(span.end)) for span in spans)
    return tuple(span for span in found if span.start < span.end)
