"""Spans: pages, sheets, slides, attachments and sections of a document's text, by numbers and offsets alone: no heading, no name."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

# So many go into an event. The parts of a file come before sections, sections of a higher level before those below them.
MAX_SPANS = 500
# A text that is nothing but headings must not take the service's memory: those after so many begin no section.
MAX_HEADINGS = 10_000
HEADING = re.compile(r"^(#{1,6})[ \t]+\S", re.MULTILINE)


class SpanKind(StrEnum):
    """What a span was."""

    PAGE = "page"
    SECTION = "section"
    SHEET = "sheet"
    SLIDE = "slide"
    ATTACHMENT = "attachment"


@dataclass(frozen=True)
class Span:
    """The stretch [start, end) of a text, in characters. `number` counts its kind from 1, anew within an attachment; `level` is that of a
    section's heading."""

    kind: SpanKind
    number: int
    start: int
    end: int
    level: int = 0


def sections(text: str) -> list[Span]:
    """Every heading of a Markdown text with all that stands under it, up to the next one of its level or above."""
    found: list[Span] = []
    opened: list[tuple[int, int, int]] = []

    def close(level: int, place: int) -> None:
        while opened and opened[-1][0] >= level:
            own, number, start = opened.pop()
            found.append(Span(SpanKind.SECTION, number, start, _before_blanks(text, place), own))

    for number, heading in enumerate(HEADING.finditer(text), 1):
        level = len(heading[1]) if number <= MAX_HEADINGS else 0
        close(level, heading.start())
        if not level:
            break
        opened.append((level, number, heading.start()))
    close(0, len(text))
    return found


def bounded(spans: Iterable[Span]) -> tuple[Span, ...]:
    """At most so many as an event takes, by where they begin, the longer first."""
    chosen = sorted(spans, key=lambda span: (span.level, span.start, -span.end))[:MAX_SPANS]
    return tuple(sorted(chosen, key=lambda span: (span.start, -span.end, span.level, span.kind)))


def _before_blanks(text: str, place: int) -> int:
    while place and text[place - 1].isspace():
        place -= 1
    return place
