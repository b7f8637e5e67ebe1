"""Rows of an engine's step that compute the same: answers to one prompt. Imports nothing of an engine."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """An answer's tokens in a step, from place `first` on. `before` is the number of tokens that were read earlier.

    `blocks` are the memory blocks of those earlier tokens, and `written` those that the step fills. Two rows have the same blocks only if
    they have the same earlier tokens.
    """

    first: int
    tokens: tuple[int, ...]
    before: int
    blocks: tuple[int, ...]
    written: tuple[int, ...]

    @property
    def end(self) -> int:
        """The place after its last token."""
        return self.first + len(self.tokens)


def find_repeats(rows: Sequence[Row]) -> dict[int, int]:
    """The numbers of rows that compute what an earlier row computes, and the number of that row.

    Without rows whose blocks another row reads in the same step: they would be copied too late.
    """
    read = {block for row in rows for block in row.blocks}
    sources: dict[tuple[object, ...], int] = {}
    repeats = {}
    for number, row in enumerate(rows):
        source = sources.setdefault((row.tokens, row.before, row.blocks), number)
        if source != number and read.isdisjoint(row.written):
            repeats[number] = source
    return repeats
