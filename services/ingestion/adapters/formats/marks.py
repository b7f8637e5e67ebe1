"""Marks that a parser sets where a page, sheet, slide or attachment begins and ends: cleaned away with their places kept, as spans.

A mark is made of characters that Unicode reserves for use within a program; no text holds them.
"""

import re

from services.ingestion.domain import Parsed, clean
from services.ingestion.spans import Span, SpanKind

NONCHARACTERS = re.compile("[\ufdd0-\ufdef]")
ENDING = "\ufdd2"
MARK = re.compile("\ufdd0(page|sheet|slide|attachment)([0-9]{1,7})\ufdd1|\ufdd2")
WORD = re.compile(r"\S+")


def opening(kind: SpanKind, number: int) -> str:
    """The mark where a span begins; it ends at its `ENDING`, or with the text."""
    return f"\ufdd0{kind}{number}\ufdd1"


def within(kind: SpanKind, number: int, text: str) -> str:
    """A text between the marks of a span."""
    return f"{opening(kind, number)}{text}{ENDING}"


def foreign(text: str) -> str:
    """Text from a file, without what could be taken for a mark."""
    return NONCHARACTERS.sub("", text)


def unmarked(text: str) -> str:
    """Text without its marks."""
    return MARK.sub("", text)


def spanned(marked: str, format: str) -> Parsed:
    """The clean text, which is the same as without marks, and the spans that they tell; what holds no words is none."""
    parts = MARK.split(marked)
    text = clean("".join(parts[::3]))
    found: list[tuple[SpanKind, int, int, int]] = []
    opened: list[tuple[SpanKind, int, int]] = []
    # Cleaning moves blanks alone: a mark stands after as many signs as were before it.
    seen = 0
    for piece, kind, number in zip(parts[::3], parts[1::3], parts[2::3], strict=False):
        seen += _signs(clean(piece))
        if kind:
            opened.append((SpanKind(kind), int(number), seen))
        elif opened:
            found.append((*opened.pop(), seen))
    seen += _signs(clean(parts[-1]))
    found += [(*each, seen) for each in opened]
    return Parsed(text, format, spans=_spans(text, found))


def marked(parsed: Parsed) -> str:
    """A parsed text with its spans as marks, to stand within another."""
    edges = [(span.start, 1, -span.end, opening(span.kind, span.number)) for span in parsed.spans]
    edges += [(span.end, 0, 0, ENDING) for span in parsed.spans]
    pieces, place = [], 0
    for offset, _, _, mark in sorted(edges):
        pieces += [parsed.text[place:offset], mark]
        place = offset
    return "".join(pieces) + parsed.text[place:]


def _spans(text: str, found: list[tuple[SpanKind, int, int, int]]) -> tuple[Span, ...]:
    """Spans of counted signs as spans of characters."""
    places = _places(text, {sign for _, _, first, end in found if first < end for sign in (first, end - 1)})
    spans = [
        Span(kind, number, places[first], places[end - 1] + 1)
        for kind, number, first, end in found
        if first in places and end - 1 in places and first < end
    ]
    return tuple(sorted(spans, key=lambda span: (span.start, -span.end)))


def _places(text: str, wanted: set[int]) -> dict[int, int]:
    """Where signs of the text stand, by their number from 0."""
    places: dict[int, int] = {}
    queue = sorted(wanted, reverse=True)
    start = seen = 0
    for line in text.split("\n"):
        after = seen + _signs(line)
        if queue and queue[-1] < after:
            for word in WORD.finditer(line):
                while queue and queue[-1] < seen + len(word[0]):
                    places[queue[-1]] = start + word.start() + queue[-1] - seen
                    queue.pop()
                seen += len(word[0])
        seen = after
        start += len(line) + 1
    return places


def _signs(text: str) -> int:
    """Characters that are no blanks."""
    return sum(map(len, text.split()))
