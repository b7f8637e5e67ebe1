"""The share of a draft that was kept in the final text, in words."""

import re
from collections import defaultdict
from collections.abc import Sequence

WORD = re.compile(r"\w+")
# Comparing takes the product of both lengths, divided by the bits of a machine word.
MAX_WORDS = 50_000


def measure_kept_share(draft: str, final: str) -> float | None:
    """The share of the draft's words that the final text has in the same order, from 0 to 1; None if the draft has no words.

    Case, punctuation and white space do not count. Words beyond the 50,000th of a text are not compared.
    """
    ours, theirs = _split(draft), _split(final)
    return _common_subsequence(ours, theirs) / len(ours) if ours else None


def _split(text: str) -> list[str]:
    return WORD.findall(text.casefold())[:MAX_WORDS]


def _common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """The length of the longest common subsequence, bit-parallel (Hyyrö 2004, Bit-Parallel LCS-length Computation Revisited)."""
    places: dict[str, int] = defaultdict(int)
    for place, word in enumerate(first):
        places[word] |= 1 << place
    all_bits = (1 << len(first)) - 1
    unmatched = all_bits
    for word in second:
        matches = unmatched & places.get(word, 0)
        unmatched = ((unmatched + matches) | (unmatched - matches)) & all_bits
    return len(first) - unmatched.bit_count()
