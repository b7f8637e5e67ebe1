"""The words in which two texts differ."""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

# A word with the white space behind it, so that the pieces of a text make up the text.
WORD = re.compile(r"\S+\s*|\s+")
# Comparing takes the product of both lengths at worst.
MAX_WORDS = 4000


class Side(Enum):
    """Where a piece of text occurs."""

    BOTH = "both"
    FIRST = "first"
    SECOND = "second"


@dataclass(frozen=True)
class DiffPiece:
    """Consecutive words on the same side."""

    side: Side
    text: str


def diff_words(first: str, second: str) -> Iterator[DiffPiece]:
    """The pieces of both texts in reading order. Words beyond the 4,000th of a text are one piece, not compared."""
    ours, theirs = WORD.findall(first), WORD.findall(second)
    matcher = difflib.SequenceMatcher(None, _strip(ours[:MAX_WORDS]), _strip(theirs[:MAX_WORDS]), autojunk=False)
    for tag, start, end, other_start, other_end in matcher.get_opcodes():
        if tag == "equal":
            yield DiffPiece(Side.BOTH, "".join(theirs[other_start:other_end]))
            continue
        if end > start:
            yield DiffPiece(Side.FIRST, "".join(ours[start:end]))
        if other_end > other_start:
            yield DiffPiece(Side.SECOND, "".join(theirs[other_start:other_end]))
    for side, words in ((Side.FIRST, ours), (Side.SECOND, theirs)):
        if len(words) > MAX_WORDS:
            yield DiffPiece(side, "".join(words[MAX_WORDS:]))


def _strip(words: list[str]) -> list[str]:
    """The words without the white space behind them, which is not compared."""
    return [word.strip() for word in words]
