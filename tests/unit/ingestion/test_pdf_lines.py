"""Of a PDF the text is kept; running lines and lists of contents are left out and counted."""

import io
from collections.abc import Iterable

from reportlab.lib.pagesizes import A4
from reportlab.pdfgen.canvas import Canvas

from services.ingestion.domain import File, ParsedText
from services.ingestion.formats.read import read

SENTENCE = "The ledger of this day has a line for account"
ENTRIES = [(f"{number}. Chapter on account {number}", number + 1) for number in range(1, 9)]


def make_pdf(pages: Iterable[Iterable[tuple[float, float, str]]]) -> bytes:
    """A PDF of pages of lines: left, height from the bottom, text."""
    buffer = io.BytesIO()
    canvas = Canvas(buffer, pagesize=A4)
    for lines in pages:
        canvas.setFont("Helvetica", 11)
        for left, height, text in lines:
            canvas.drawString(left, height, text)
        canvas.showPage()
    canvas.save()
    return buffer.getvalue()


def parse(pages: Iterable[Iterable[tuple[float, float, str]]]) -> ParsedText:
    return read(File(make_pdf(pages), "ledger.pdf"))


def body(page: int, lines: int = 12) -> list[tuple[float, float, str]]:
    return [(72, 700 - 14 * line, f"{SENTENCE} {chr(97 + page)}{chr(97 + line)}.") for line in range(lines)]


def dotted(text: str, page: int | str) -> str:
    return f"{text} {'. ' * 30}{page}"


def test_running_lines_and_page_numbers_are_skipped_and_counted() -> None:
    pages = [
        [(72, 800, "Books of the firm"), *body(page), (72, 40, "Ledger 2025"), (500, 40, f"Page {page + 1} of 6")]
        for page in range(6)
    ]
    parsed = parse(pages)
    assert parsed.text.count("Books of the firm") == parsed.text.count("Page 1 of 6") == 1
    assert "Page 2" not in parsed.text
    assert all(f"{SENTENCE} {chr(97 + page)}l." in parsed.text for page in range(6))
    assert parsed.removed == {"running_lines": 5 * len("BooksofthefirmLedger2025Page1of6")}


def test_a_sentence_goes_on_over_a_running_line() -> None:
    pages = [
        [(72, 800, "Books of the firm"), (72, 700, "the day ends and"), (72, 40, str(page + 1))] for page in range(4)
    ]
    assert "the day ends and the day ends and the day ends and" in parse(pages).text


def test_roman_numbers_of_pages_are_skipped() -> None:
    pages = [[*body(page), (300, 40, number)] for page, number in enumerate(("i", "ii", "iii", "iv"))]
    assert parse(pages).removed == {"running_lines": len("iiiiiiiv")}


def test_a_letter_of_two_pages_keeps_its_letterhead() -> None:
    parsed = parse([[(72, 800, "Firm and Sons, 12 Quay"), *body(page)] for page in range(2)])
    assert parsed.text.count("Firm and Sons") == 2 and parsed.removed == {}


def test_a_heading_that_differs_on_each_page_is_text() -> None:
    assert parse([[(72, 800, f"Employee {4711 + 13 * page}"), *body(page)] for page in range(6)]).removed == {}


def test_a_page_starts_where_its_text_does() -> None:
    parsed = parse([[(72, 800, "Books of the firm"), *body(page)] for page in range(4)])
    starts = [parsed.text[span.start :][: len(SENTENCE) + 4] for span in parsed.spans if span.kind == "page"]
    assert starts[1:] == [f"{SENTENCE} {letter}a." for letter in "bcd"]


def test_a_list_of_contents_is_skipped_with_its_heading() -> None:
    contents = [(72, 750, "Contents")] + [(72, 720 - 14 * row, dotted(*entry)) for row, entry in enumerate(ENTRIES)]
    parsed = parse([contents, *(body(page) for page in range(9))])
    assert "Contents" not in parsed.text and "Chapter on" not in parsed.text and ". . ." not in parsed.text
    assert set(parsed.removed) == {"contents"} and f"{SENTENCE} aa." in parsed.text


def test_contents_without_dots_are_known_by_their_heading() -> None:
    rows = [[(72, 720 - 14 * row, name), (500, 720 - 14 * row, str(page))] for row, (name, page) in enumerate(ENTRIES)]
    contents = [(72.0, 750.0, "Inhaltsverzeichnis"), *(line for row in rows for line in row)]
    text = (72, 500, "What follows the contents on the same page is text.")
    parsed = parse([[*contents, text], *(body(page) for page in range(9))])
    assert "Chapter on" not in parsed.text and "is text." in parsed.text


def test_a_table_with_dots_is_text() -> None:
    prices = [(72, 720 - 14 * row, dotted(f"Coffee of kind {row}", f"{12 - row}.50")) for row in range(10)]
    rooms = [(72, 720 - 14 * row, dotted(f"Room {row}", 340 - 20 * row)) for row in range(10)]
    scores = [(72, 720 - 14 * row, dotted(f"Question {row}", row % 4)) for row in range(10)]
    for table in (prices, rooms, scores):
        parsed = parse([table, *(body(page) for page in range(3))])
        assert parsed.removed == {} and parsed.text.count(". . .") >= 10


def test_a_file_that_is_a_list_of_contents_keeps_it() -> None:
    assert (
        "Chapter on account 8"
        in parse([[(72, 720 - 14 * row, dotted(*entry)) for row, entry in enumerate(ENTRIES)]]).text
    )


def test_an_index_is_skipped() -> None:
    index = [
        (72, 720 - 14 * row, dotted(f"{chr(97 + row)}ccount", f"{3 + row % 3}, {7 + row % 2}")) for row in range(14)
    ]
    parsed = parse([*(body(page) for page in range(9)), index])
    assert "ccount . ." not in parsed.text and set(parsed.removed) == {"contents"}
