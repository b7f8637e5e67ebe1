"""Pages, sheets, slides, attachments and sections of a text, as offsets."""

import io
from email.message import EmailMessage

from openpyxl import Workbook
from pptx import Presentation
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.platypus import PageBreak, Paragraph, SimpleDocTemplate

from services.ingestion.adapters.parse import ParseLimits, ParserPool
from services.ingestion.domain import File, ParsedText
from services.ingestion.formats.marks import add_marks, mark_span, parse_marks, start_mark
from services.ingestion.formats.read import read
from services.ingestion.spans import MAX_HEADINGS, MAX_SPANS, find_sections, limit_spans
from tailor.values import Span, SpanKind

REPORT = "# Report\n\nIntro.\n\n## Position\n\nIt holds.\n\n### Detail\n\nMore.\n\n## Remedy\n\nAct.\n"


def make_pdf(*pages: str) -> bytes:
    styles, buffer = getSampleStyleSheet(), io.BytesIO()
    story: list[object] = []
    for number, page in enumerate(pages, 1):
        words = [Paragraph(page, styles["BodyText"])] if page else []
        story += [Paragraph(f"Heading of page {number}", styles["Heading2"]), *words, PageBreak()]
    SimpleDocTemplate(buffer).build(story)
    return buffer.getvalue()


def texts(parsed: ParsedText, kind: SpanKind) -> list[tuple[int, str]]:
    return [(span.number, parsed.text[span.start : span.end]) for span in parsed.spans if span.kind is kind]


def test_finds_the_pages_of_a_pdf() -> None:
    parsed = read(File(make_pdf("The first page is short.", "The second page is short too."), "report.pdf"))
    assert texts(parsed, SpanKind.PAGE) == [
        (1, "# Heading of page 1\n\nThe first page is short."),
        (2, "# Heading of page 2\n\nThe second page is short too."),
    ]


def test_a_page_may_begin_within_a_paragraph() -> None:
    paragraph = "the ledger of every crossing was kept by hand and nobody looked at it again " * 120
    parsed = read(File(make_pdf(paragraph), "report.pdf"))
    first, second, *_ = texts(parsed, SpanKind.PAGE)
    assert (first[0], second[0]) == (1, 2)
    assert first[1].startswith("# Heading of page 1\n\nthe ledger")
    assert second[1][0].islower() and "\n" not in second[1]
    assert " ".join([first[1], second[1]]) in parsed.text


def test_finds_the_slides_of_a_presentation() -> None:
    presentation, buffer = Presentation(), io.BytesIO()
    for title in ("Position", "Remedy"):
        presentation.slides.add_slide(presentation.slide_layouts[5]).shapes.title.text = title
    presentation.save(buffer)
    parsed = read(File(buffer.getvalue(), "report.pptx"))
    assert texts(parsed, SpanKind.SLIDE) == [(1, "## Position"), (2, "## Remedy")]


def test_finds_the_sheets_of_a_workbook() -> None:
    workbook, buffer = Workbook(), io.BytesIO()
    for name in ("Risks", "Owners"):
        sheet = workbook.create_sheet(name)
        sheet.append(["name", "due"])
        sheet.append([name, "June"])
    workbook.save(buffer)
    sheets = texts(read(File(buffer.getvalue(), "report.xlsx")), SpanKind.SHEET)
    # Every workbook begins with an empty sheet.
    assert [(number, text.partition("\n")[0]) for number, text in sheets] == [
        (1, "## Sheet"),
        (2, "## Risks"),
        (3, "## Owners"),
    ]


def test_finds_attachments_and_the_pages_within_them() -> None:
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


def test_marks_do_not_change_the_text() -> None:
    plain = "One  \n\n\n\n two\x01 \u00e9e\u0301 \n\n\n\nthree"
    parts = plain.split("\n\n\n\n")
    text = "\n\n\n\n".join(mark_span(SpanKind.PAGE, number, part) for number, part in enumerate(parts, 1))
    parsed = parse_marks(text, "pdf")
    assert parsed.text == parse_marks(plain, "pdf").text
    assert texts(parsed, SpanKind.PAGE) == [(1, "One"), (2, "two \u00e9\u00e9"), (3, "three")]


def test_a_span_of_blanks_is_skipped() -> None:
    parsed = parse_marks(f"{mark_span(SpanKind.PAGE, 1, ' ')}\n\n{start_mark(SpanKind.PAGE, 2)}words", "pdf")
    assert parsed.spans == (Span(SpanKind.PAGE, 2, 0, 5),)


def test_marks_survive_a_round_trip() -> None:
    inner = mark_span(
        SpanKind.ATTACHMENT, 1, f"{mark_span(SpanKind.PAGE, 1, 'one')} {mark_span(SpanKind.PAGE, 2, 'two')}"
    )
    parsed = parse_marks(f"words {inner} more", "eml")
    assert parse_marks(add_marks(parsed), "eml") == parsed


def test_a_section_ends_where_the_next_of_its_level_begins() -> None:
    sections = {span.number: (span.level, REPORT[span.start : span.end]) for span in find_sections(REPORT)}
    assert sections[1] == (1, REPORT.strip())
    assert sections[2] == (2, "## Position\n\nIt holds.\n\n### Detail\n\nMore.")
    assert sections[3] == (3, "### Detail\n\nMore.")
    assert sections[4] == (2, "## Remedy\n\nAct.")


def test_the_number_of_sections_is_limited() -> None:
    spans = find_sections("# x\n" * (3 * MAX_HEADINGS))
    assert len(spans) == MAX_HEADINGS
    assert {span.end - span.start for span in spans} == {3}


def test_the_number_of_spans_is_limited_with_parts_of_the_file_first() -> None:
    text = "".join(f"{'#' * (1 + number % 2)} {number}\n\nwords\n\n" for number in range(MAX_SPANS))
    pages = [Span(SpanKind.PAGE, number + 1, number, number + 1) for number in range(100)]
    limited = limit_spans([*find_sections(text), *pages])
    assert len(limited) == MAX_SPANS
    assert sum(span.kind is SpanKind.PAGE for span in limited) == 100
    assert sum(span.level == 1 for span in limited) == MAX_SPANS // 2
    assert [span.start for span in limited] == sorted(span.start for span in limited)


def test_the_sandboxed_parser_returns_spans() -> None:
    pool = ParserPool(ParseLimits(wall_seconds=60, cpu_seconds=30, memory_bytes=1536 * 2**20), 1)
    try:
        file = File(make_pdf("The first page is short.", "The second page is short too."), "report.pdf")
        assert pool.parse(file) == read(file)
    finally:
        pool.close()
