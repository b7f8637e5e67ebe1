"""The sections of a Markdown text as spans, and how many spans an event carries. Spans hold numbers and offsets, never titles or names."""

import re
from collections.abc import Iterable

from tailor.values import Span, SpanKind

# The most spans of one event. The file's own parts come first, then sections by level, the highest level first.
MAX_SPANS = 500
# Bounds memory for a text that consists of headings only. Later headings start no section.
MAX_HEADINGS = 10_000
HEADING = re.compile(r"^(#{1,6})[ \t]+\S", re.MULTILINE)


def find_sections(text: str) -> list[Span]:
    """A span for every heading of a Markdown text, up to the next heading of the same or a higher level."""
    sections: list[Span] = []
    open_sections: list[tuple[int, int, int]] = []

    def close(level: int, place: int) -> None:
        while open_sections and open_sections[-1][0] >= level:
            section_level, number, start = open_sections.pop()
            end = _skip_blanks_before(text, place)
            sections.append(Span(SpanKind.SECTION, number, start, end, section_level))

    for number, heading in enumerate(HEADING.finditer(text), 1):
        level = len(heading[1]) if number <= MAX_HEADINGS else 0
        close(level, heading.start())
        if not level:
            break
        open_sections.append((level, number, heading.start()))
    close(0, len(text))
    return sections


def limit_spans(spans: Iterable[Span]) -> tuple[Span, ...]:
    """At most MAX_SPANS spans, ordered by start; of spans with the same start, the longer comes first."""
    chosen = sorted(spans, key=lambda span: (span.level, span.start, -span.end))[:MAX_SPANS]
    return tuple(sorted(chosen, key=lambda span: (span.start, -span.end, span.level, span.kind)))


def _skip_blanks_before(text: str, place: int) -> int:
    while place and text[place - 1].isspace():
        place -= 1
    return place
