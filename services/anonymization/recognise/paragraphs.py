"""Splitting a text into the pieces that are analysed one by one."""

import re
from collections.abc import Iterator, Sequence

PARAGRAPH_END = re.compile(r"(?m:^#[^\n]*\n+)|\n[ \t]*\n+|(?<=\n)(?=#)|(?<=\n)(?=[ \t]*(?:[-*•]|\d+[.)])[ \t])")
# The cost of a paragraph may grow faster than its length; the cost of a text does not.
MAX_PARAGRAPH_CHARS = 4_000
MAX_BATCH = 64
MAX_BATCH_CHARS = 20_000

Paragraph = tuple[int, str]


def paragraphs(text: str) -> Iterator[Paragraph]:
    """The text's paragraphs, headings and list items with their offsets. Very long ones are cut at a line, sentence or word end."""
    start = 0
    for end in [*(match.end() for match in PARAGRAPH_END.finditer(text)), len(text)]:
        while end - start > MAX_PARAGRAPH_CHARS:
            limit = start + MAX_PARAGRAPH_CHARS
            half = start + MAX_PARAGRAPH_CHARS // 2
            cut = next((place + 1 for mark in ("\n", ". ", " ") if (place := text.rfind(mark, half, limit)) > 0), limit)
            yield start, text[start:cut]
            start = cut
        if end > start:
            yield start, text[start:end]
            start = end


def batches(pieces: Iterator[Paragraph]) -> Iterator[Sequence[Paragraph]]:
    """Paragraphs in groups of limited number and length, so that no text holds the model for long."""
    batch: list[Paragraph] = []
    chars = 0
    for piece in pieces:
        if batch and (len(batch) == MAX_BATCH or chars + len(piece[1]) > MAX_BATCH_CHARS):
            yield batch
            batch, chars = [], 0
        batch.append(piece)
        chars += len(piece[1])
    if batch:
        yield batch
