"""Rows of an engine's step that compute the same: answers to one prompt. Imports nothing of an engine."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """An answer's tokens in a step, from place `first` on. `before` are the tokens that were read earlier.

    `blocks` are the memory blocks of those earlier tokens. Two rows have the same blocks only if they have the same earlier tokens.
    """

    first: int
    tokens: tuple[int, ...]
    before: int
    blocks: tuple[int, ...]

    @property
    def end(self) -> int:
        """The place after its last token."""
        return self.first + len(self.tokens)


def find_repeats(rows: Sequence[Row]) -> dict[int, int]:
    """The numbers of rows that compute what an earlier row computes, and the number of that row."""
    sources: dict[tuple[object, ...], int] = {}
    repeats = {}
    for number, row in enumerate(rows):
        source = sources.setdefault((row.tokens, row.before, row.blocks), number)
        if source != number:
            repeats[number] = source
    return repeats
