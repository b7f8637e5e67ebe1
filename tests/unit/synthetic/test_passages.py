"""Passages: sections by ingestion's spans, else paragraphs merged to about 200 words."""

import itertools

import pytest

from services.synthetic.domain import Passage
from services.synthetic.rows.passages import passages, short_passages
from services.synthetic.rows.ranges import count_characters
from tailor.values import Span, SpanKind
from tests.unit.synthetic import row_texts
from tests.unit.synthetic.row_texts import make_document, plain


def passages_of(text: str, *spans: Span) -> tuple[Passage, ...]:
    return passages(make_document(text, spans=spans), plain(text))


@pytest.mark.parametrize("name", row_texts.ALL)
def test_passages_cover_everything_that_is_not_blank(name: str) -> None:
    text = row_texts.ALL[name][1]
    found = passages_of(text)
    assert count_characters(text, [(p.start, p.end) for p in found]) == count_characters(text, [(0, len(text))])
    assert all(before.end <= after.start for before, after in itertools.pairwise(found))


def test_sections_have_their_headings_from_the_outermost_in() -> None:
    text = "# Report\n\nA lead of some words.\n\n## Cash\n\nOne.\n\n### Keys\n\nTwo.\n\n## Stamps\n\nThree."
    assert [(p.headings, p.text) for p in passages_of(text)] == [
        (("Report",), "A lead of some words."),
        (("Report", "Cash"), "One."),
        (("Report", "Cash", "Keys"), "Two."),
        (("Report", "Stamps"), "Three."),
    ]


def test_a_long_section_stays_one_passage() -> None:
    assert [len(p.text.split()) > 550 for p in passages_of(row_texts.report("en", 600))] == [False, *[True] * 6]


@pytest.mark.parametrize("limit", [300, 2000])
@pytest.mark.parametrize("name", row_texts.ALL)
def test_passages_of_a_limited_length_lose_nothing(name: str, limit: int) -> None:
    text = row_texts.ALL[name][1]
    found = short_passages(make_document(text), plain(text), limit)
    assert all(len(p.text) <= limit for p in found)
    assert count_characters(text, [(p.start, p.end) for p in found]) == count_characters(text, [(0, len(text))])
    assert all(before.end <= after.start for before, after in itertools.pairwise(found))


def test_the_parts_of_a_long_passage_have_its_headings_and_end_with_its_sentences() -> None:
    text = row_texts.report("en", 600)
    long = [p for p in passages_of(text) if len(p.text) > 2000]
    parts = [p for p in short_passages(make_document(text), plain(text), 2000) if p.heading == long[0].heading]
    assert len(parts) > 1 and all(p.headings == long[0].headings and p.text[-1] in ".!?:" for p in parts)
    assert "".join(" ".join(p.text for p in parts).split()) == "".join(long[0].text.split())


def test_paragraphs_without_headings_are_merged_to_about_200_words() -> None:
    found = passages_of(row_texts.paragraphs("en", 1500, 1))
    assert len(found) in range(5, 9)
    assert all(120 <= len(p.text.split()) <= 280 for p in found[:-1])


def test_one_block_of_a_thousand_words_is_not_one_passage() -> None:
    found = passages_of(row_texts.paragraphs("en", 1000, 1).replace("\n\n", " "))
    assert len(found) > 2
    assert all(p.text.endswith(".") for p in found)


def test_lines_of_a_hard_broken_paragraph_are_joined_and_its_paragraphs_told_apart() -> None:
    (passage,) = passages_of(row_texts.HARD_BREAKS)
    first, second = passage.text.split("\n\n")
    assert "done on site in Hull by two auditors" in first and first.endswith("of the first week.")
    assert second.startswith("Orders below £5,000") and "\n" not in second


def test_a_word_that_a_line_broke_is_not_split_by_a_blank() -> None:
    text = "The committee saw the list of open cases in the second quar-\nter of the year and asked for another one, which was due.\n"
    assert "quar-ter of the year" in passages_of(text)[0].text


def test_header_lines_addresses_and_items_keep_their_lines() -> None:
    (mail,) = passages_of(row_texts.MAIL)
    assert "From: Ann Lee <ann@coop.example>\nTo: Bo Ray <bo@farm.example>\nDate: 14 November 2025" in mail.text
    assert "Kind regards\nAnn Lee" in mail.text and "> Which plots do you mean?\n> I have" in mail.text
    minutes = passages_of(row_texts.MINUTES)
    assert minutes[2].text.split("\n")[1] == "2. Petra Lang tells the staff by 10 June."


def test_sheets_and_attachments_begin_passages() -> None:
    text = "The list is attached.\n\nOne, two and three are in it.\n\nKeys of the archive."
    found = passages_of(text, Span(SpanKind.ATTACHMENT, 1, text.index("Keys"), len(text)))
    assert [p.text for p in found] == ["The list is attached.\n\nOne, two and three are in it.", "Keys of the archive."]


def test_pages_begin_no_passages() -> None:
    text = "The first page ends in the middle of a sentence that goes on to the second page."
    cut = text.index("that")
    assert len(passages_of(text, Span(SpanKind.PAGE, 1, 0, cut), Span(SpanKind.PAGE, 2, cut, len(text)))) == 1


def test_an_empty_text_has_no_passages() -> None:
    assert passages_of(" \n\n ") == ()
