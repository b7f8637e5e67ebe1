"""Finds the parts of a document (pages, sections, ...) that hold a row's passage."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from services.synthetic.domain import Document, Passage, Row, Text
from tailor.words import Span

# The longest line of a heading.
HEADING_CHARS = 400


def add_spans(rows: Iterable[Row], documents: Mapping[str, Document], texts: Mapping[str, Text]) -> list[Row]:
    """The rows with the spans of their passages in the documents' texts. A row of a whole document has no spans."""
    return [_add_spans(row, documents[row.document_ids[0]], texts[row.document_ids[0]].text) for row in rows]


def _add_spans(row: Row, document: Document, text: str) -> Row:
    place = find_passage(text, row.passage) if row.passage is not None and document.spans else None
    return row if place is None else replace(row, spans=find_spans(document.spans, *place))


def find_passage(text: str, passage: Passage) -> tuple[int, int] | None:
    """Start and end of a passage in its document's text; None if it is not found. Its boilerplate lines may be missing."""
    if not passage.text:
        return None
    position = first = text.find(passage.text)
    while position >= 0:
        above = text[max(0, position - HEADING_CHARS) : position].rstrip().rpartition("\n")[2]
        if passage.heading in above:
            return position, position + len(passage.text)
        position = text.find(passage.text, position + 1)
    return (first, first + len(passage.text)) if first >= 0 else _find_around(text, passage)


def find_spans(spans: Sequence[Span], start: int, end: int) -> tuple[Span, ...]:
    """Of each kind, the smallest span that contains [start, end), or else all spans that it overlaps."""
    result: list[Span] = []
    for kind in {span.kind for span in spans}:
        overlapping = [span for span in spans if span.kind == kind and span.start < end and start < span.end]
        containing = [span for span in overlapping if span.start <= start and end <= span.end]
        result += [min(containing, key=lambda span: span.end - span.start)] if containing else overlapping
    return tuple(sorted(result, key=lambda span: (span.start, -span.end, span.kind)))


def _find_around(text: str, passage: Passage) -> tuple[int, int] | None:
    """From the passage's first line after its heading to its last line."""
    lines = [line for line in passage.text.split("\n") if line.strip()]
    start = text.find(lines[0], max(0, text.find(passage.heading)))
    end = text.find(lines[-1], start)
    return None if start < 0 or end < 0 else (start, end + len(lines[-1]))
