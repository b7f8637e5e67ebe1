"""The parts of a document that hold a row's passage."""

from dataclasses import replace

import pytest

from services.synthetic import handlers
from services.synthetic.domain import Passage, Row
from services.synthetic.rows.places import find_passage, find_spans
from services.synthetic.wire import from_row
from tailor.api.common.v1 import common_pb2
from tailor.wire import to_span
from tailor.words import Filters, Span, SpanKind
from tests.unit.synthetic.fakes import SPECIALIST, make_app, put_document, report

FIRST = "The ladders were counted twice in 2024 and 17 of them were found in places that nobody had checked."
SECOND = "The hoists were counted once in 2025, and 9 of them were found in a depot that nobody had named."
TEXT = f"# Report\n\n## Position\n\n{FIRST}\n\n{SECOND}\n\n## Remedy\n\n{FIRST}\n"


def spans_of(text: str, page_break: str) -> tuple[Span, ...]:
    """Two pages, the second of which begins with `page_break`, and a section for each heading of level 2."""
    middle, starts = text.index(page_break), [start for start in range(len(text)) if text.startswith("## ", start)]
    sections = zip(starts, [*starts[1:], len(text)], strict=True)
    return (
        Span(SpanKind.PAGE, 1, 0, middle),
        Span(SpanKind.PAGE, 2, middle, len(text)),
        *(Span(SpanKind.SECTION, number, *section, level=2) for number, section in enumerate(sections, 2)),
    )


def names(spans: tuple[Span, ...]) -> list[tuple[str, int]]:
    return [(span.kind, span.number) for span in spans]


@pytest.mark.parametrize(("heading", "expected"), [("Position", TEXT.index(FIRST)), ("Remedy", TEXT.rindex(FIRST))])
def test_finds_a_repeated_passage_by_its_heading(heading: str, expected: int) -> None:
    assert find_passage(TEXT, Passage("Report", heading, FIRST)) == (expected, expected + len(FIRST))


def test_finds_a_passage_without_its_boilerplate_line() -> None:
    text = TEXT.replace(SECOND, f"Please keep this to yourself at all times.\n\n{SECOND}")
    start, end = find_passage(text, Passage("Report", "Position", f"{FIRST}\n\n{SECOND}")) or (0, 0)
    assert text[start:end].startswith(FIRST) and text[start:end].endswith(SECOND)


def test_does_not_find_a_passage_of_another_text() -> None:
    assert find_passage(TEXT, Passage("Report", "Position", "Another text.")) is None
    assert find_passage(TEXT, Passage("Report", "Position", "")) is None


def test_a_row_has_its_section_and_the_pages_that_it_overlaps() -> None:
    spans = spans_of(TEXT, SECOND)
    first = TEXT.index(FIRST)
    assert names(find_spans(spans, first, first + len(FIRST))) == [("page", 1), ("section", 2)]
    assert names(find_spans(spans, first, TEXT.index(SECOND) + 9)) == [("page", 1), ("section", 2), ("page", 2)]
    last = TEXT.rindex(FIRST)
    assert names(find_spans(spans, last, last + len(FIRST))) == [("page", 2), ("section", 3)]


def test_previewed_rows_carry_their_spans() -> None:
    app = make_app(limits=replace(make_app().limits, rows_per_document=9, min_answer_tokens=10))
    text = report("ladders")
    document = replace(put_document(app.store, 1, text=text), spans=spans_of(text, "## Remedy"))
    handlers.on_document(app, document)
    rows = handlers.preview_rows(app, "reports", document.document_id, 20)
    sections = [row for row in rows if row.origin == "section"]
    assert {row.completion[-6:]: names(row.spans) for row in sections} == {
        "First.": [("page", 1), ("section", 2)],
        "dders.": [("page", 2), ("section", 3)],
    }
    for row in sections:
        (section,) = (span for span in row.spans if span.kind == "section")
        assert row.completion in text[section.start : section.end]


def test_rows_of_a_dataset_have_spans_of_the_whole_text_even_without_boilerplate() -> None:
    specialist = replace(SPECIALIST, filters=Filters(boilerplate_documents=30))
    app = make_app(specialists={"reports": specialist})
    notice = "This report is for its reader only and must never be passed on to anybody else."
    for number in range(40):
        text = report(f"topic{number}").replace("## Position", f"## Notice\n\n{notice}\n\n## Position")
        document = put_document(app.store, number, text=text)
        handlers.on_document(app, replace(document, spans=spans_of(text, "## Position")))
    handlers.build_dataset(app, "reports", "")
    rows = [row for split in app.writer.written for row in split if row.origin == "section"]
    assert rows
    for row in rows:
        expected = 3 if row.completion.endswith("First.") else 4
        assert names(row.spans) == [("page", 2), ("section", expected)]


def test_a_row_of_a_whole_document_has_no_spans() -> None:
    app = make_app()
    text = report("ladders")
    example = replace(put_document(app.store, 2, text=text, prompt="Write it."), spans=spans_of(text, "## Remedy"))
    handlers.on_document(app, example)
    (row,) = handlers.preview_rows(app, "reports", example.document_id, 20)
    assert row.origin == "example" and row.spans == ()


def test_spans_cross_the_wire() -> None:
    span = Span(SpanKind.PAGE, 3, 12, 40)
    row = Row("section", ("doc_1",), "Ask.", "Answer.", spans=(span, Span(SpanKind.SECTION, 1, 14, 30, level=2)))
    (page, section) = from_row(row).spans
    assert (page.kind, section.kind, section.level) == (common_pb2.SPAN_KIND_PAGE, common_pb2.SPAN_KIND_SECTION, 2)
    assert to_span(page) == span
    assert row.row_id == replace(row, spans=()).row_id
