"""Every format to Markdown, and every reason for a rejection."""

import io
import zipfile
from email.message import EmailMessage

import pytest
from docx import Document
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.platypus import Paragraph, SimpleDocTemplate

from services.ingestion.domain import File, Rejected, RejectionReason
from services.ingestion.formats.read import read

STORY = "The control envelope holds, and the friction ledger is short. " * 6


def make_pdf(encrypt: StandardEncryption | None = None) -> bytes:
    styles, buffer = getSampleStyleSheet(), io.BytesIO()
    story = [
        Paragraph("Engagement report", styles["Title"]),
        Paragraph("Position", styles["Heading2"]),
        Paragraph(STORY, styles["BodyText"]),
    ]
    story += [Paragraph(text, styles["Bullet"], bulletText="•") for text in (f"first {STORY}", "second")]
    SimpleDocTemplate(buffer, encrypt=encrypt).build(story)
    return buffer.getvalue()


def make_docx() -> bytes:
    document, buffer = Document(), io.BytesIO()
    document.add_heading("Engagement report", 1)
    document.add_paragraph(STORY)
    document.add_paragraph("a finding", style="List Bullet")
    table = document.add_table(rows=2, cols=2)
    for row, cells in zip(table.rows, (("owner", "date"), ("risk", "June")), strict=True):
        for cell, text in zip(row.cells, cells, strict=True):
            cell.text = text
    document.save(buffer)
    return buffer.getvalue()


def make_mail(subtype: str = "plain", body: str = "Would you sign?\n") -> bytes:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = (
        "Ann <a@firm.example>",
        "Bo <b@firm.example>",
        "Requests past day twenty",
    )
    mail["Date"] = "Mon, 19 May 2025 13:33:00 +0100"
    mail.set_content(body, subtype=subtype)
    return mail.as_bytes()


def make_archive(names: list[str], flag: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"content")
    data = bytearray(buffer.getvalue())
    data[data.index(b"PK\x01\x02") + 8] |= flag
    return bytes(data)


def test_reads_pdf_with_headings_and_lists() -> None:
    text = read(File(make_pdf(), "report.pdf")).text
    assert text.startswith("# Engagement report\n\n## Position\n\nThe control envelope holds")
    assert "\n- first The control envelope" in text and "\n- second\n" in text
    assert STORY.strip() in text


def test_reads_docx_with_headings_lists_and_tables() -> None:
    text = read(File(make_docx(), "report.docx")).text
    assert text.startswith("# Engagement report\n")
    assert "\n- a finding\n" in text
    assert "| owner | date |" in text and "| risk | June |" in text


def test_reads_html_without_scripts() -> None:
    page = "<!doctype html><html><head><script>alert(1)</script></head><body><h2>Position</h2><p>Café at 5 €</p><ul><li>one</li></ul></body></html>"
    text = read(File(page.encode("cp1252"), "page", "text/html; charset=windows-1252")).text
    assert text == "## Position\n\nCafé at 5 €\n\n- one\n"


@pytest.mark.parametrize("inside", ["<h2>Position</h2>", "<table><tr><td><h2>Position</h2></td></tr></table>"])
def test_a_table_that_arranges_a_page_is_not_a_table(inside: str) -> None:
    data = "<table><tr><th>owner</th></tr><tr><td>risk</td></tr></table>"
    page = f"<html><body><table><tbody><tr><td></td><td>{inside}<p>All is well.</p>{data}</td></tr></tbody></table></body></html>"
    text = read(File(page.encode(), "page.html")).text
    assert text.startswith("## Position\n\nAll is well.\n\n| owner |")
    assert text.endswith("| risk |\n")


def test_the_words_around_an_anchor_stay_apart() -> None:
    page = b'<h3><a name="gates">Gates </a>North</h3><p>Open<a id="x"> at </a>six.</p>'
    assert read(File(page, "page.html")).text == "### Gates North\n\nOpen at six.\n"


@pytest.mark.parametrize("file", [File(b"Gates\n=====\n", "notes.rst"), File(b"Gates\n=====\n", "", "text/x-rst")])
def test_reads_restructured_text_as_text(file: File) -> None:
    parsed = read(file)
    assert (parsed.format, parsed.text) == ("txt", "Gates\n=====\n")


@pytest.mark.parametrize("kind", ["mixed", "alternative"])
def test_a_mail_whose_boundary_is_missing_is_read_as_its_text(kind: str) -> None:
    mail = f"From: Ann <a@firm.example>\nSubject: Gates\nContent-Type: multipart/{kind}; boundary=X\n\nGates open at six.\n"
    assert read(File(mail.encode(), "mail.eml")).text == "# Gates\n\nFrom: Ann <a@firm.example>\n\nGates open at six.\n"


@pytest.mark.parametrize("subtype", ["plain", "html"])
def test_reads_mail_with_subject_as_heading(subtype: str) -> None:
    body = "<p>Would you sign?</p>" if subtype == "html" else "Would you sign?\n"
    text = read(File(make_mail(subtype, body), "mail.eml")).text
    assert text == (
        "# Requests past day twenty\n\nFrom: Ann <a@firm.example>\nTo: Bo <b@firm.example>\nDate: 19 May 2025\n\nWould you sign?\n"
    )


def test_does_not_convert_markdown_and_text() -> None:
    assert read(File(b"# Memo\r\n\r\n\r\n\r\nline  \r\n", "memo.md")).text == "# Memo\n\nline\n"
    assert read(File(b"Heard: one.", "note.txt")).format == "txt"
    assert read(File(b"Heard: one.")).format == "txt"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
def test_reads_any_common_encoding(encoding: str) -> None:
    text = "Solène Müller owes 5 – no more. The café's control envelope is short."
    assert read(File(text.encode(encoding), "note.txt")).text == text + "\n"


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (File(make_pdf()[:-900], "cut.pdf"), RejectionReason.CORRUPT),
        (File(b"%PDF-1.4 nothing at all %%EOF", "bad.pdf"), RejectionReason.CORRUPT),
        (File(b"words", "named.pdf"), RejectionReason.CORRUPT),
        (File(make_docx()[:-900], "cut.docx"), RejectionReason.CORRUPT),
        (File(make_archive(["word/document.xml"]), "bad.docx"), RejectionReason.CORRUPT),
        (File(b"words", "named.docx"), RejectionReason.CORRUPT),
        (File(b"{not json", "example.json"), RejectionReason.CORRUPT),
        (File(make_pdf(StandardEncryption("secret", canPrint=0)), "locked.pdf"), RejectionReason.ENCRYPTED),
        (File(make_archive(["word/document.xml"], flag=1), "locked.docx"), RejectionReason.ENCRYPTED),
        (
            File(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"), "locked.docx"),
            RejectionReason.ENCRYPTED,
        ),
        (File(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1 old", "old.doc"), RejectionReason.UNSUPPORTED_FORMAT),
        (File(make_archive(["xl/workbook.xml"]), "book.xlsx"), RejectionReason.CORRUPT),
        (File(make_archive(["ppt/presentation.xml"]), "deck.pptx"), RejectionReason.CORRUPT),
        (File(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1 no mail", "mail.msg"), RejectionReason.CORRUPT),
        (File(make_archive(["a/file.txt"]), "files.zip"), RejectionReason.UNSUPPORTED_FORMAT),
        (File(b"{\\rtf1 words}", "memo"), RejectionReason.UNSUPPORTED_FORMAT),
        (File(b"\x89PNG\r\n\x1a\n\0\0\0", "image.png"), RejectionReason.UNSUPPORTED_FORMAT),
        (File(b"a,b", "table.ods"), RejectionReason.UNSUPPORTED_FORMAT),
        (File(make_mail(body="\n"), "mail.eml"), RejectionReason.NO_TEXT),
        (File(b'{"prompt": "only", "answer": 5}', "example.json"), RejectionReason.MALFORMED),
        (File(b'{"prompt": " ", "answer": "only"}', "example.json"), RejectionReason.MALFORMED),
        (File(make_archive([str(number) for number in range(6_000)]), "many.docx"), RejectionReason.TOO_LARGE),
    ],
)
def test_rejects(file: File, reason: RejectionReason) -> None:
    with pytest.raises(Rejected) as caught:
        read(file)
    assert caught.value.reason == reason
    assert "only" not in caught.value.hint


def test_the_content_decides_before_the_name() -> None:
    assert read(File(make_pdf(), "report.txt")).format == "pdf"


def test_restructured_text_is_read_without_what_is_for_programs() -> None:
    text = (
        ".. _s-priorities:\n\nPriorities\n==========\n\n.. index:: priority\n   :name: p\n\nEach package has a priority.\n\n"
        ".. toctree::\n   :maxdepth: 2\n\n   one\n   two\n\n.. note::\n\n   Ask first.\n\n.. _page: https://example.org/a\n"
    )
    parsed = read(File(text.encode(), "priorities.txt"))
    assert parsed.text == "Priorities\n==========\n\nEach package has a priority.\n\n.. note::\n\n   Ask first.\n"
    kept = "".join(parsed.text.split())
    assert parsed.removed == {"markup": len("".join(text.split())) - len(kept)}


@pytest.mark.parametrize("text", ["Wait ... and see.\n", ".. and so on: nothing\n", "  .. note:: Ask first.\n"])
def test_other_dots_stay(text: str) -> None:
    parsed = read(File(text.encode(), "note.txt"))
    assert parsed.text.strip() == text.strip() and not parsed.removed
