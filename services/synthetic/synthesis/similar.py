"""Near-duplicates among rows, in memory."""

import re
from collections import Counter
from collections.abc import Iterable

WORD = re.compile(r"\w+")
SHINGLE_WORDS = 3
SIMILAR = 0.6
COPIED = 0.8
COPY_LENGTH = 0.7
# Texts of similarity 0.6 share one of their 8 lowest hashes with a probability of more than 0.99.
LOWEST = 8
OVERLAP_WORDS = 13
BOILERPLATE_ROWS = 10

Shingles = frozenset[int]


def shingles(text: str, size: int = SHINGLE_WORDS) -> Shingles:
    """Hashes of all runs of `size` words, in lower case; of the whole text if it is shorter. Valid in this process only."""
    words = WORD.findall(text.lower())
    return frozenset(hash(tuple(words[at : at + size])) for at in range(max(1, len(words) - size + 1)))


def is_copy(text: str, source: str) -> bool:
    """True if a text is nearly its source, or repeats most of it."""
    part, whole = shingles(text), shingles(source)
    if len(part & whole) >= SIMILAR * len(part | whole):
        return True
    return len(text) > COPY_LENGTH * len(source) and len(part & whole) > COPIED * len(part)


def quotes(text: str, source: str) -> bool:
    """True if nearly every run of words occurs in the source."""
    part = shingles(text)
    return len(part & shingles(source)) >= COPIED * len(part)


class SimilarTexts:
    """Texts, and whether another one is nearly equal to one of them (Jaccard similarity of runs of words). Not thread-safe."""

    def __init__(self) -> None:
        self._texts: list[Shingles] = []
        self._by_hash: dict[int, list[int]] = {}

    def add(self, text: str) -> None:
        grams = shingles(text)
        for value in sorted(grams)[:LOWEST]:
            self._by_hash.setdefault(value, []).append(len(self._texts))
        self._texts.append(grams)

    def has_similar(self, text: str) -> bool:
        grams = shingles(text)
        candidates = {at for value in sorted(grams)[:LOWEST] for at in self._by_hash.get(value, ())}
        return any(len(grams & self._texts[at]) >= SIMILAR * len(grams | self._texts[at]) for at in candidates)


class HeldOutTexts:
    """Answers of held-out rows, and whether another text is nearly equal to one or shares 13 words in a row with one."""

    def __init__(self, answers: Iterable[str]) -> None:
        self._similar = SimilarTexts()
        counts: Counter[int] = Counter()
        for answer in answers:
            self._similar.add(answer)
            if len(WORD.findall(answer)) >= OVERLAP_WORDS:
                counts.update(shingles(answer, OVERLAP_WORDS))
        self._grams = frozenset(gram for gram, rows in counts.items() if rows < BOILERPLATE_ROWS)

    def has_similar(self, text: str) -> bool:
        return self._similar.has_similar(text) or not self._grams.isdisjoint(shingles(text, OVERLAP_WORDS))
