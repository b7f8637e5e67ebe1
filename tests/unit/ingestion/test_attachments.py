"""Tables, slides, data and mails with attachments, to Markdown."""

import datetime
import io
import json
import struct
import time
from email.message import EmailMessage

import pytest
from openpyxl import Workbook
from pptx import Presentation
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches

from services.ingestion.domain import File, Rejected, RejectionReason, clean
from services.ingestion.formats.read import read
from tests.unit.ingestion.compound import make_msg


def make_xlsx() -> bytes:
    book, buffer = Workbook(), io.BytesIO()
    sheet = book.active
    sheet.title = "Findings"
    for row in (["owner", "due", "cost"], ["risk | audit", datetime.date(2025, 6, 1), 12.0], ["tax", None, 1.5]):
        sheet.append(row)
    sheet.append([])
    sheet.append([None, "A note on its own."])
    book.create_sheet("Formulas")["A1"] = '=HYPERLINK("http://evil.example","x")'
    book.save(buffer)
    return buffer.getvalue()


def make_pptx() -> bytes:
    deck, buffer = Presentation(), io.BytesIO()
    cover = deck.slides.add_slide(deck.slide_layouts[0])
    cover.shapes.title.text = "Engagement report"
    slide = deck.slides.add_slide(deck.slide_layouts[1])
    slide.shapes.title.text = "Position"
    frame = slide.placeholders[1].text_frame
    frame.text = "first finding"
    second = frame.add_paragraph()
    second.text, second.level = "its cause", 1
    box = slide.shapes.add_textbox(0, 0, Inches(1), Inches(1))
    box.text_frame.text = "A box of words."
    table = slide.shapes.add_table(2, 2, 0, 0, Inches(2), Inches(1)).table
    for place, text in enumerate(("owner", "date", "risk", "June")):
        table.cell(place // 2, place % 2).text = text
    data = CategoryChartData()  # type: ignore[no-untyped-call]
    data.categories = ["2024", "2025"]
    data.add_series("cost", (1.5, 2))  # type: ignore[no-untyped-call]
    slide.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, 0, 0, Inches(2), Inches(2), data)
    slide.notes_slide.notes_text_frame.text = "Say it slowly."
    deck.save(buffer)
    return buffer.getvalue()


def make_mail(words: str = "Please read both.", **attachments: bytes | EmailMessage) -> EmailMessage:
    mail = EmailMessage()
    mail["From"], mail["Subject"] = "Ann <a@firm.example>", "Papers"
    mail.set_content(words)
    for name, content in attachments.items():
        if isinstance(content, EmailMessage):
            mail.add_attachment(content)
        else:
            mail.add_attachment(
                content, maintype="application", subtype="octet-stream", filename=name.replace("_", ".")
            )
    return mail


def text_of(data: bytes, name: str) -> str:
    return read(File(data, name)).text


def test_reads_workbooks_as_tables_under_their_sheets() -> None:
    assert text_of(make_xlsx(), "book.xlsx") == (
        "## Findings\n\n| owner | due | cost |\n| --- | --- | --- |\n| risk \\| audit | 2025-06-01 | 12 |\n| tax |  | 1.5 |\n\n"
        "A note on its own.\n\n## Formulas\n"
    )


def test_reads_slides_with_lists_tables_charts_and_notes() -> None:
    assert text_of(make_pptx(), "deck.pptx") == (
        "# Engagement report\n\n## Position\n\n- first finding\n  - its cause\n\nA box of words.\n\n"
        "| owner | date |\n| --- | --- |\n| risk | June |\n\n"
        "|  | cost |\n| --- | --- |\n| 2024 | 1.5 |\n| 2025 | 2 |\n\n### Notes\n\nSay it slowly.\n"
    )


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_reads_separated_values_as_a_table(delimiter: str) -> None:
    rows = (("owner", "note"), ("risk", '"two\nlines"'), ("tax", ""))
    data = "\r\n".join(delimiter.join(row) for row in rows).encode("utf-16")
    assert text_of(data, "table.csv") == "| owner | note |\n| --- | --- |\n| risk | two lines |\n| tax |  |\n"


def test_reads_data_as_lists_tables_and_sections() -> None:
    data = {
        "title": "Plan",
        "cost": 1e3,
        "open": True,
        "none": None,
        "steps": ["plan", "do"],
        "people": [{"name": "Ann", "role": "lead"}, {"name": "Bo"}],
        "site": {"town": "Leeds", "rooms": [{"size": [1, 2]}]},
    }
    assert text_of(json.dumps(data).encode(), "plan.json") == (
        "- title: Plan\n- cost: 1000.0\n- open: true\n- none:\n\n# steps\n\n- plan\n- do\n\n"
        "# people\n\n| name | role |\n| --- | --- |\n| Ann | lead |\n| Bo |  |\n\n"
        "# site\n\n- town: Leeds\n\n## rooms\n\n### 1\n\n#### size\n\n- 1\n- 2\n"
    )


def test_only_an_object_of_prompt_and_answer_is_an_example() -> None:
    assert read(File(b'{"prompt": "Write.", "answer": "Written."}', "a.json")).prompt == "Write."
    assert read(File(b'{"prompt": "Write.", "answer": "Written.", "by": "Ann"}', "a.json")).prompt is None


def test_parses_attachments_by_their_own_format_below_their_names() -> None:
    inner = make_mail("The inner words.", table_csv=b"owner,date\nrisk,June\n")
    mail = make_mail(memo_md=b"# Memo\n\nWords.", deck_pptx=make_pptx(), picture_png=b"\x89PNG\r\n\x1a\n\0", mail=inner)
    text = text_of(mail.as_bytes(), "mail.eml")
    assert text.startswith("# Papers\n\nFrom: Ann <a@firm.example>\n\nPlease read both.\n\n## Attachment: memo.md\n\n")
    assert "## Attachment: memo.md\n\n### Memo\n\nWords.\n" in text
    assert "## Attachment: deck.pptx\n\n### Engagement report\n" in text
    assert "## Attachment: picture.png\n\n(not read)\n" in text
    assert "## Attachment: Papers\n\n### Papers\n\nFrom: Ann <a@firm.example>\n\nThe inner words.\n" in text
    assert text.endswith("#### Attachment: table.csv\n\n| owner | date |\n| --- | --- |\n| risk | June |\n")


def test_a_mail_may_have_its_text_only_in_an_attachment() -> None:
    assert "The words." in text_of(make_mail("\n", memo_txt=b"The words.").as_bytes(), "mail.eml")


def test_attachments_nest_three_deep() -> None:
    mail = make_mail("Level 4.")
    for level in (3, 2, 1, 0):
        mail = make_mail(f"Level {level}.", mail=mail)
    text = text_of(mail.as_bytes(), "mail.eml")
    assert all(f"Level {level}." in text for level in range(4))
    assert "Level 4." not in text and "(not read)" in text


def test_too_many_attachments_reject_the_mail() -> None:
    mail = make_mail("Words.", **{f"note{number}_txt": b"words" for number in range(201)})
    with pytest.raises(Rejected) as caught:
        text_of(mail.as_bytes(), "mail.eml")
    assert caught.value.reason == RejectionReason.TOO_LARGE


def test_reads_mail_headers_in_any_encoding() -> None:
    mail = (
        b"From: =?iso-8859-1?q?Sol=E8ne?= <s@firm.example>\r\nSubject: Caf\xc3\xa9 =?utf-8?b?4oKs?=\r\n\r\nWords.\r\n"
    )
    assert text_of(mail, "mail.eml") == "# Café €\n\nFrom: Solène <s@firm.example>\n\nWords.\n"


def test_rejects_encrypted_mail() -> None:
    mail = (
        b'From: a@firm.example\nSubject: s\nContent-Type: application/pkcs7-mime; smime-type="enveloped-data"\n\nMIIB\n'
    )
    with pytest.raises(Rejected) as caught:
        text_of(mail, "mail.eml")
    assert caught.value.reason == RejectionReason.ENCRYPTED


def test_reads_outlook_mails_with_attached_files_and_mails() -> None:
    inner = {"subject": "Inner", "html": b"<p>Inner <b>words</b></p>", "attachments": [("n.txt", b"Note.")]}
    message = {
        "subject": "Papers",
        "sender": "Ann",
        "address": "a@firm.example",
        "to": "Bo; Cy",
        "body": "Please read.",
        "attachments": [("book.xlsx", make_xlsx()), ("Inner", inner)],
    }
    text = text_of(make_msg(message), "mail.msg")
    assert text.startswith("# Papers\n\nFrom: Ann <a@firm.example>\nTo: Bo; Cy\nDate: 19 May 2025\n\nPlease read.\n\n")
    assert "## Attachment: book.xlsx\n\n#### Findings\n" in text
    assert "## Attachment: Inner\n\n### Inner\n\nDate: 19 May 2025\n\nInner **words**\n\n" in text
    assert text.endswith("#### Attachment: n.txt\n\nNote.\n")


@pytest.mark.parametrize("end", ["\r", "\r\n", "\x0b", "\x0c", "\x85", "\u2028", "\u2029"])
def test_a_line_end_of_any_kind_keeps_words_apart(end: str) -> None:
    assert clean(f"Ngozi{end}Okafor, tel.{end}020 7946 0958") == "Ngozi\nOkafor, tel.\n020 7946 0958\n"


def test_cleaning_takes_time_linear_in_the_text() -> None:
    start = time.process_time()
    assert clean(" " * 500_000 + "x") == "x\n"
    assert len(clean("a" + "\u0300\u0323" * 250_000)) < 40
    assert time.process_time() - start < 2


WORDS = {
    "utf-16-le": "The café owes 5 € since May. " * 3,
    "utf-16-be": "Привет, это записка о встрече. " * 3,
    "utf-32-le": "The café owes 5 € since May. " * 3,
    "utf-32-be": "The café owes 5 € since May. " * 3,
    "latin-1": "Der Prüfer hält die Übersicht für vollständig; la synthèse a été reçue à l'été. " * 3,
    "cp1252": "The client’s café owes €5 – no more. Größe und Maß sind geprüft. " * 3,
    "cp1250": "Zażółć gęślą jaźń, a następnie prześlij sprawozdanie z działalności spółki do końca miesiąca. " * 4,
    "cp1251": "Настоящий отчёт содержит выводы проверки за второй квартал и предложения по их устранению. " * 4,
    "cp1253": "Η έκθεση περιέχει τα συμπεράσματα του ελέγχου και τις προτάσεις για τη βελτίωση. " * 4,
    "shift_jis": "この報告書には、第二四半期の監査の結論と改善のための提案が含まれています。" * 4,
}


@pytest.mark.parametrize("encoding", sorted(WORDS))
def test_detects_undeclared_encodings(encoding: str) -> None:
    assert text_of(WORDS[encoding].encode(encoding), "note.txt") == WORDS[encoding].strip() + "\n"


def test_ignores_declared_codecs_that_are_not_charsets() -> None:
    for name in ("punycode", "unicode_escape", "zlib_codec", "no-such-charset", "x" * 5_000, "../../etc"):
        assert (
            read(File(b"Plain \\u0041 words.", "a.txt", f"text/plain; charset={name}")).text == "Plain \\u0041 words.\n"
        )


RTF = struct.pack("<IIII", 40, 24, 0x414C454D, 0) + rb"{\\rtf1 Would you sign?}  "


def test_an_outlook_mail_with_only_rtf_is_rejected_with_a_remedy() -> None:
    mail = {"subject": "Requests", "rtf": RTF, "attachments": [("note.md", b"# Note\n\nWords.\n")]}
    with pytest.raises(Rejected, match="RTF only") as caught:
        read(File(make_msg(mail), "mail.msg"))
    assert (caught.value.reason, caught.value.format) == (RejectionReason.UNSUPPORTED_FORMAT, "msg")


def test_an_outlook_mail_with_rtf_and_text_is_parsed() -> None:
    assert "Would you sign?" in read(File(make_msg({"body": "Would you sign?", "rtf": RTF}), "mail.msg")).text


def test_an_outlook_mail_with_only_attachments_is_parsed_although_it_has_rtf() -> None:
    mail = {"subject": "Note", "body": "\r\n", "rtf": RTF, "attachments": [("note.md", b"# Note\n\nWords.\n")]}
    assert "Words." in read(File(make_msg(mail), "mail.msg")).text
