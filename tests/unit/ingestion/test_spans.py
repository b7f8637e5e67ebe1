"""Pages, sheets, slides, attachments and sections of a text, as offsets."""

import io
from email.message import EmailMessage

import pytest
from openpyxl import Workbook
from pptx import Presentation
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.platypus import PageBreak, Paragraph, SimpleDocTemplate

from services.ingestion.adapters.formats.marks import marked, opening, spanned, within
from services.ingestion.adapters.formats.read import read
from services.ingestion.adapters.parse import Limits, ParserPool
from services.ingestion.consumers import to_event
from services.ingestion.domain import Accepted, File, Kind, Labels, Parsed, Submission, with_sections
from services.ingestion.handlers import take_in
from services.ingestion.spans import MAX_HEADINGS, MAX_SPANS, Span, SpanKind, bounded, sections
from tailor.api.common.v1 import common_pb2
from tests.unit.ingestion.fakes import make_intake, make_receipt

REPORT = "# Report\n\nIntro.\n\n## Position\n\nIt holds.\n\n### Detail\n\nMore.\n\n## Remedy\n\nAct.\n"


def make_pdf(*pages: str) -> bytes:
    styles, buffer = getSampleStyleSheet(), io.BytesIO()
    story: list[object] = []
    for number, page in enumerate(pages, 1):
        words = [Paragraph(page, styles["BodyText"])] if page else []
        story += [Paragraph(f"Heading of page {number}", styles["Heading2"]), *words, PageBreak()]
    SimpleDocTemplate(buffer).build(story)
    return buffer.getvalue()


def texts(parsed: Parsed, kind: SpanKind) -> list[tuple[int, str]]:
    return [(span.number, parsed.text[span.start : span.end]) for span in parsed.spans if span.kind is kind]


def test_keeps_the_pages_of_a_pdf() -> None:
    parsed = read(File(make_pdf("The first page is short.", "The second page is short too."), "report.pdf"))
    assert texts(parsed, SpanKind.PAGE) == [
        (1, "# Heading of page 1\n\nThe first page is short."),
        (2, "# Heading of page 2\n\nThe second page is short too."),
    ]


def test_a_page_begins_within_the_paragraph_that_runs_over_it() -> None:
    paragraph = "the ledger of every crossing was kept by hand and nobody looked at it again " * 120
    parsed = read(File(make_pdf(paragraph), "report.pdf"))
    first, second, *_ = texts(parsed, SpanKind.PAGE)
    assert (first[0], second[0]) == (1, 2)
    assert first[1].startswith("# Heading of page 1\n\nthe ledger")
    assert second[1][0].islower() and "\n" not in second[1]
    assert " ".join([first[1], second[1]]) in parsed.text


def test_keeps_the_slides_of_a_presentation() -> None:
    presentation, buffer = Presentation(), io.BytesIO()
    for title in ("Position", "Remedy"):
        presentation.slides.add_slide(presentation.slide_layouts[5]).shapes.title.text = title
    presentation.save(buffer)
    parsed = read(File(buffer.getvalue(), "report.pptx"))
    assert texts(parsed, SpanKind.SLIDE) == [(1, "## Position"), (2, "## Remedy")]


def test_keeps_the_sheets_of_a_workbook() -> None:
    workbook, buffer = Workbook(), io.BytesIO()
    for name in ("Risks", "Owners"):
        sheet = workbook.create_sheet(name)
        sheet.append(["name", "due"])
        sheet.append([name, "June"])
    workbook.save(buffer)
    found = texts(read(File(buffer.getvalue(), "report.xlsx")), SpanKind.SHEET)
    # The first sheet is the empty one that every workbook begins with.
    assert [(number, text.partition("\n")[0]) for number, text in found] == [
        (1, "## Sheet"),
        (2, "## Risks"),
        (3, "## Owners"),
    ]


def test_keeps_attachments_and_the_pages_within_them() -> None:
    mail = EmailMessage()
    mail["Subject"] = "Two things"
    mail.set_content("Both attached.\n")
    mail.add_attachment(b"# Note\n\nA note.\n", maintype="text", subtype="markdown", filename="note.md")
    pdf = make_pdf("The first page is short.", "The second page is short too.")
    mail.add_attachment(pdf, maintype="application", subtype="pdf", filename="report.pdf")
    parsed = read(File(mail.as_bytes(), "mail.eml"))
    assert [number for number, _ in texts(parsed, SpanKind.ATTACHMENT)] == [1, 2]
    note, report = (text for _, text in texts(parsed, SpanKind.ATTACHMENT))
    assert note == "## Attachment: note.md\n\n### Note\n\nA note."
    pages = texts(parsed, SpanKind.PAGE)
    assert pages[1] == (2, "### Heading of page 2\n\nThe second page is short too.")
    assert report.startswith("## Attachment: report.pdf\n\n### Heading of page 1") and report.endswith(pages[1][1])


def test_marks_change_no_text() -> None:
    plain = "One  \n\n\n\n two\x01 \u00e9e\u0301 \n\n\n\nthree"
    parts = plain.split("\n\n\n\n")
    text = "\n\n\n\n".join(within(SpanKind.PAGE, number, part) for number, part in enumerate(parts, 1))
    parsed = spanned(text, "pdf")
    assert parsed.text == spanned(plain, "pdf").text
    assert texts(parsed, SpanKind.PAGE) == [(1, "One"), (2, "two \u00e9\u00e9"), (3, "three")]


def test_a_span_without_words_is_none() -> None:
    parsed = spanned(f"{within(SpanKind.PAGE, 1, ' ')}\n\n{opening(SpanKind.PAGE, 2)}words", "pdf")
    assert parsed.spans == (Span(SpanKind.PAGE, 2, 0, 5),)


def test_marks_come_back_as_they_were() -> None:
    inner = within(SpanKind.ATTACHMENT, 1, f"{within(SpanKind.PAGE, 1, 'one')} {within(SpanKind.PAGE, 2, 'two')}")
    parsed = spanned(f"words {inner} more", "eml")
    assert spanned(marked(parsed), "eml") == parsed


def test_a_section_ends_where_the_next_of_its_level_begins() -> None:
    found = {span.number: (span.level, REPORT[span.start : span.end]) for span in sections(REPORT)}
    assert found[1] == (1, REPORT.strip())
    assert found[2] == (2, "## Position\n\nIt holds.\n\n### Detail\n\nMore.")
    assert found[3] == (3, "### Detail\n\nMore.")
    assert found[4] == (2, "## Remedy\n\nAct.")


def test_a_text_of_headings_alone_makes_no_more_sections_than_are_counted() -> None:
    found = sections("# x\n" * (3 * MAX_HEADINGS))
    assert len(found) == MAX_HEADINGS
    assert {span.end - span.start for span in found} == {3}


def test_at_most_so_many_spans_are_kept_the_parts_of_the_file_first() -> None:
    text = "".join(f"{'#' * (1 + number % 2)} {number}\n\nwords\n\n" for number in range(MAX_SPANS))
    pages = [Span(SpanKind.PAGE, number + 1, number, number + 1) for number in range(100)]
    kept = bounded([*sections(text), *pages])
    assert len(kept) == MAX_SPANS
    assert sum(span.kind is SpanKind.PAGE for span in kept) == 100
    assert sum(span.level == 1 for span in kept) == MAX_SPANS // 2
    assert [span.start for span in kept] == sorted(span.start for span in kept)


def test_the_locked_in_parser_tells_spans() -> None:
    pool = ParserPool(Limits(wall_seconds=60, cpu_seconds=30, memory_bytes=1536 * 2**20), 1)
    try:
        file = File(make_pdf("The first page is short.", "The second page is short too."), "report.pdf")
        assert pool.parse(file) == read(file)
    finally:
        pool.close()


@pytest.mark.parametrize("text", [REPORT, "Plain words.\n"])
def test_sections_are_stated_with_the_version(text: str) -> None:
    intake, _, _ = make_intake()
    submission = Submission("a", Kind.DOCUMENT, Labels(), Parsed(text, "md"))
    outcome = take_in(intake, make_receipt("k", submission))
    assert isinstance(outcome, Accepted)
    assert outcome.spans == with_sections(Parsed(text, "md")).spans
    stated = to_event(outcome)[2].spans
    assert [(span.kind, span.number, span.level, text[span.start : span.end]) for span in stated] == [
        (common_pb2.SPAN_KIND_SECTION, span.number, span.level, text[span.start : span.end]) for span in outcome.spans
    ]
    assert bool(stated) == text.startswith("#")
