"""Rows say which part of a document they come from."""

from dataclasses import replace

import pytest

from services.synthetic import handlers
from services.synthetic.domain import Filters, Row
from services.synthetic.places import parts, place_of
from services.synthetic.spans import Passage, Span
from services.synthetic.wire import from_row, to_span
from tailor.api.common.v1 import common_pb2
from tests.unit.synthetic.fakes import SPECIALIST, JsonWriter, make_app, put_document, report

FIRST = "The ladders were counted twice in 2024 and 17 of them were found where nobody had looked for them."
SECOND = "The hoists were counted once in 2025, and 9 of them were found in a depot that nobody had named."
TEXT = f"# Report\n\n## Position\n\n{FIRST}\n\n{SECOND}\n\n## Remedy\n\n{FIRST}\n"


def spans_of(text: str, page_break: str) -> tuple[Span, ...]:
    """Two pages, the second from where a text begins, and a section for each heading of level 2."""
    middle, starts = text.index(page_break), [place for place in range(len(text)) if text.startswith("## ", place)]
    sections = zip(starts, [*starts[1:], len(text)], strict=True)
    return (
        Span("page", 1, 0, 0, middle),
        Span("page", 2, 0, middle, len(text)),
        *(Span("section", number, 2, *place) for number, place in enumerate(sections, 2)),
    )


def names(spans: tuple[Span, ...]) -> list[tuple[str, int]]:
    return [(span.kind, span.number) for span in spans]


@pytest.mark.parametrize(("heading", "expected"), [("Position", TEXT.index(FIRST)), ("Remedy", TEXT.rindex(FIRST))])
def test_a_passage_that_stands_twice_is_told_by_its_heading(heading: str, expected: int) -> None:
    assert place_of(TEXT, Passage("Report", heading, FIRST)) == (expected, expected + len(FIRST))


def test_a_passage_is_found_though_a_line_of_it_was_boilerplate() -> None:
    text = TEXT.replace(SECOND, f"Please keep this to yourself at all times.\n\n{SECOND}")
    start, end = place_of(text, Passage("Report", "Position", f"{FIRST}\n\n{SECOND}")) or (0, 0)
    assert text[start:end].startswith(FIRST) and text[start:end].endswith(SECOND)


def test_a_passage_that_is_nowhere_has_no_place() -> None:
    assert place_of(TEXT, Passage("Report", "Position", "Another text.")) is None
    assert place_of(TEXT, Passage("Report", "Position", "")) is None


def test_a_row_names_its_section_and_the_pages_that_it_touches() -> None:
    spans = spans_of(TEXT, SECOND)
    first = TEXT.index(FIRST)
    assert names(parts(spans, first, first + len(FIRST))) == [("page", 1), ("section", 2)]
    assert names(parts(spans, first, TEXT.index(SECOND) + 9)) == [("page", 1), ("section", 2), ("page", 2)]
    last = TEXT.rindex(FIRST)
    assert names(parts(spans, last, last + len(FIRST))) == [("page", 2), ("section", 3)]


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


def test_rows_of_a_dataset_carry_the_spans_of_the_whole_text_though_boilerplate_is_left_out() -> None:
    specialist = replace(SPECIALIST, filters=Filters(boilerplate_documents=30))
    app = make_app(specialists={"reports": specialist})
    notice = "This report is for the reader alone and must never be passed on to anybody else."
    for number in range(40):
        text = report(f"topic{number}").replace("## Position", f"## Notice\n\n{notice}\n\n## Position")
        document = put_document(app.store, number, text=text)
        handlers.on_document(app, replace(document, spans=spans_of(text, "## Position")))
    handlers.build_dataset(app, "reports", "")
    assert isinstance(app.writer, JsonWriter)
    rows = [row for split in app.writer.written for row in split if row.origin == "section"]
    assert rows
    for row in rows:
        expected = 3 if row.completion.endswith("First.") else 4
        assert names(row.spans) == [("page", 2), ("section", expected)]


def test_what_comes_from_a_whole_document_names_no_part() -> None:
    app = make_app()
    text = report("ladders")
    example = replace(put_document(app.store, 2, text=text, prompt="Write it."), spans=spans_of(text, "## Remedy"))
    handlers.on_document(app, example)
    (row,) = handlers.preview_rows(app, "reports", example.document_id, 20)
    assert row.origin == "example" and row.spans == ()


def test_spans_cross_the_wire() -> None:
    span = Span("page", 3, 0, 12, 40)
    row = Row("section", ("doc_1",), "Ask.", "Answer.", spans=(span, Span("section", 1, 2, 14, 30)))
    (page, section) = from_row(row).spans
    assert (page.kind, section.kind, section.level) == (common_pb2.SPAN_KIND_PAGE, common_pb2.SPAN_KIND_SECTION, 2)
    assert to_span(page) == span
    assert row.row_id == replace(row, spans=()).row_id
