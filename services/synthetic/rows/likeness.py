"""Whether two texts are alike, by their shingles of three words."""

from services.synthetic.rows.structure import words

SHINGLE_WORDS = 3
REPEATED = 0.8
# From this share of the source's length on, an answer can be a copy of it.
COPY_LENGTH = 0.7

Shingles = frozenset[tuple[str, ...]]


def shingles(text: str) -> Shingles:
    """Every run of three words; a shorter text is one shingle."""
    text_words = words(text)
    count = max(1, len(text_words) - SHINGLE_WORDS + 1)
    return frozenset(tuple(text_words[start : start + SHINGLE_WORDS]) for start in range(count))


def copies(answer: str, source: str) -> bool:
    """True if the answer repeats most of its source, nearly word for word."""
    parts = shingles(answer)
    shared = len(parts & shingles(source)) / max(1, len(parts))
    return len(answer) > COPY_LENGTH * len(source) and shared > REPEATED


def is_alike(first: Shingles, second: Shingles) -> bool:
    """True if two texts, given as shingles, share more than 80 % of them (Jaccard)."""
    return len(first & second) > REPEATED * len(first | second)
