"""Where a row comes from: the parts of its document that hold its passage."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from services.synthetic.domain import Document, Row, Text
from services.synthetic.spans import Passage, Span

# A heading's line is no longer.
HEADING_CHARS = 400


def located(rows: Iterable[Row], documents: Mapping[str, Document], texts: Mapping[str, Text]) -> list[Row]:
    """The rows with the spans that they come from, of the documents' whole texts; what was made of a whole document has none."""
    return [_located(row, documents[row.document_ids[0]], texts[row.document_ids[0]].text) for row in rows]


def _located(row: Row, document: Document, text: str) -> Row:
    place = place_of(text, row.passage) if row.passage is not None and document.spans else None
    return row if place is None else replace(row, spans=parts(document.spans, *place))


def place_of(text: str, passage: Passage) -> tuple[int, int] | None:
    """Where a passage stands in its document's text; None where it cannot be told. Lines may be missing from it as boilerplate."""
    if not passage.text:
        return None
    place = first = text.find(passage.text)
    while place >= 0:
        above = text[max(0, place - HEADING_CHARS) : place].rstrip().rpartition("\n")[2]
        if passage.heading in above:
            return place, place + len(passage.text)
        place = text.find(passage.text, place + 1)
    return (first, first + len(passage.text)) if first >= 0 else _around(text, passage)


def parts(spans: Sequence[Span], start: int, end: int) -> tuple[Span, ...]:
    """Of each kind the smallest span that holds [start, end), or else all that it touches."""
    found: list[Span] = []
    for kind in {span.kind for span in spans}:
        touched = [span for span in spans if span.kind == kind and span.start < end and start < span.end]
        holding = [span for span in touched if span.start <= start and end <= span.end]
        found += [min(holding, key=lambda span: span.end - span.start)] if holding else touched
    return tuple(sorted(found, key=lambda span: (span.start, -span.end, span.kind)))


def _around(text: str, passage: Passage) -> tuple[int, int] | None:
    """From the passage's first line to its last, after its heading."""
    lines = [line for line in passage.text.split("\n") if line.strip()]
    start = text.find(lines[0], max(0, text.find(passage.heading)))
    end = text.find(lines[-1], start)
    return None if start < 0 or end < 0 else (start, end + len(lines[-1]))
