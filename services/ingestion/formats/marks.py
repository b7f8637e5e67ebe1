"""Marks that a parser puts where a page, sheet, slide or attachment begins and ends. Cleaning the text turns them into spans.

A mark consists of noncharacters, which Unicode reserves for use within a program, so no text contains them.
"""

import re

from services.ingestion.domain import ParsedText, clean
from tailor.values import Span, SpanKind

NONCHARACTERS = re.compile("[\ufdd0-\ufdef]")
ENDING = "\ufdd2"
MARK = re.compile("\ufdd0(page|sheet|slide|attachment)([0-9]{1,7})\ufdd1|\ufdd2")
WORD = re.compile(r"\S+")


def start_mark(kind: SpanKind, number: int) -> str:
    """The mark at the start of a span. The span ends at its `ENDING`, or with the text."""
    return f"\ufdd0{kind}{number}\ufdd1"


def mark_span(kind: SpanKind, number: int, text: str) -> str:
    """The text between the marks of a span."""
    return f"{start_mark(kind, number)}{text}{ENDING}"


def strip_noncharacters(text: str) -> str:
    """Text from a file without noncharacters, so that nothing in it looks like a mark."""
    return NONCHARACTERS.sub("", text)


def remove_marks(text: str) -> str:
    """The text without the marks that a parser put into it."""
    return MARK.sub("", text)


def parse_marks(marked: str, format: str) -> ParsedText:
    """The clean text, equal to the text without marks, and the spans between the marks. A span of blanks is left out."""
    parts = MARK.split(marked)
    text = clean("".join(parts[::3]))
    spans: list[tuple[SpanKind, int, int, int]] = []
    open_spans: list[tuple[SpanKind, int, int]] = []
    # Cleaning changes only blanks, so the number of signs (non-blank characters) before a mark stays the same.
    seen = 0
    for piece, kind, number in zip(parts[::3], parts[1::3], parts[2::3], strict=False):
        seen += _signs(clean(piece))
        if kind:
            open_spans.append((SpanKind(kind), int(number), seen))
        elif open_spans:
            spans.append((*open_spans.pop(), seen))
    seen += _signs(clean(parts[-1]))
    spans += [(*span, seen) for span in open_spans]
    return ParsedText(text, format, spans=_spans(text, spans))


def add_marks(parsed: ParsedText) -> str:
    """A parsed text with its spans as marks, to be inserted into another text."""
    edges = [(span.start, 1, -span.end, start_mark(span.kind, span.number)) for span in parsed.spans]
    edges += [(span.end, 0, 0, ENDING) for span in parsed.spans]
    pieces, place = [], 0
    for offset, _, _, mark in sorted(edges):
        pieces += [parsed.text[place:offset], mark]
        place = offset
    return "".join(pieces) + parsed.text[place:]


def _spans(text: str, counted: list[tuple[SpanKind, int, int, int]]) -> tuple[Span, ...]:
    """Convert spans counted in signs to spans counted in characters."""
    places = _places(text, {sign for _, _, first, end in counted if first < end for sign in (first, end - 1)})
    spans = [
        Span(kind, number, places[first], places[end - 1] + 1)
        for kind, number, first, end in counted
        if first in places and end - 1 in places and first < end
    ]
    return tuple(sorted(spans, key=lambda span: (span.start, -span.end)))


def _places(text: str, wanted: set[int]) -> dict[int, int]:
    """The character offsets of signs, by the number of the sign from 0."""
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
    """The number of characters that are not blanks."""
    return sum(map(len, text.split()))
