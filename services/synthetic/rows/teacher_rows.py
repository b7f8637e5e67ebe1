"""Which rows of a teacher are fit to learn from."""

from collections.abc import Sequence

from services.synthetic.domain import Row, RowLimits, estimate_tokens
from services.synthetic.rows.structure import words

SHINGLE_WORDS = 3
REPEATED = 0.8

Shingles = frozenset[tuple[str, ...]]


def accept_rows(candidates: Sequence[Row], passage: str, earlier: Sequence[Row], limits: RowLimits) -> list[Row]:
    """The rows that are not empty, too short or too long, and that repeat neither the passage nor an earlier row."""
    source = _shingles(passage)
    accepted: list[Row] = []
    for row in candidates:
        answer = _shingles(row.completion)
        copies_passage = len(row.completion) > 0.7 * len(passage) and _share(answer, source) > REPEATED
        repeats_row = any(_is_alike(answer, _shingles(other.completion)) for other in [*earlier, *accepted])
        is_short = estimate_tokens(row.completion) < limits.min_answer_tokens or not row.prompt.strip()
        if not (copies_passage or repeats_row or is_short or row.tokens > limits.max_row_tokens):
            accepted.append(row)
    return accepted


def _shingles(text: str) -> Shingles:
    text_words = words(text)
    count = max(1, len(text_words) - SHINGLE_WORDS + 1)
    return frozenset(tuple(text_words[start : start + SHINGLE_WORDS]) for start in range(count))


def _share(part: Shingles, whole: Shingles) -> float:
    return len(part & whole) / max(1, len(part))


def _is_alike(first: Shingles, other: Shingles) -> bool:
    return len(first & other) > REPEATED * len(first | other)
