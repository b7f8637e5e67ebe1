"""Reading a document's structure."""

from services.synthetic.rows.structure import key_facts, lower_first, parse, sentences

MEMO = """To: Marcus Finch, Eastmere Homes
From: Lotte Friedrichsen
Date: Thu, 10 June 2025 09:00:00 +0000
Subject: Lifts in Gannet Tower

## Purpose
Gannet Tower has 22 floors and two lifts.

## Decision
Replace both door motors at £17,600."""


def test_reads_title_and_sections_of_a_report() -> None:
    outline = parse("# Report: wood dust\n\nA lead.\n\n## Position\n\nOne.\n\n## Remedy\n\n1. Two.\n")
    assert outline.title == "Report: wood dust"
    assert outline.lead == "A lead."
    assert [(part.heading, part.text) for part in outline.sections] == [("Position", "One."), ("Remedy", "1. Two.")]


def test_reads_header_lines_and_takes_the_subject_as_title() -> None:
    outline = parse(MEMO)
    assert outline.title == "Lifts in Gannet Tower"
    assert outline.header("to") == "Marcus Finch, Eastmere Homes"
    assert outline.day == "10 June 2025"
    assert [part.heading for part in outline.sections] == ["Purpose", "Decision"]


def test_reads_header_lines_that_stand_apart() -> None:
    assert len(parse(MEMO.replace("\n", "\n\n")).headers) == 4


def test_reads_plain_headings_without_marks() -> None:
    plain = MEMO.replace("## ", "").replace(
        "lifts.", "lifts, and neither of them has run for a whole week since spring began."
    )
    plain = plain.replace(
        "£17,600.", "£17,600, and do so before the contractor's engagement ends with the year's last quarter."
    )
    assert [part.heading for part in parse(plain).sections] == ["Purpose", "Decision"]


def test_takes_a_short_first_line_as_title_but_no_sentence() -> None:
    assert parse("Note for the file\nHeard: nothing.").title == "Note for the file"
    assert parse("Please call me.\nThank you.").title == ""


def test_signatures_are_no_headings() -> None:
    mail = "From: A\nTo: B\n\nPlease send the plan.\n\nKind regards,\n\nCamille Fournier\nManager, Lyon\n+33 1 99"
    assert parse(mail).sections == ()


def test_splits_sentences_but_not_at_titles() -> None:
    assert sentences("Mr. Dodd met Dr. Kervadec. It was 9 May.") == ["Mr. Dodd met Dr. Kervadec.", "It was 9 May."]


def test_facts_are_clauses_with_figures_and_never_contacts() -> None:
    text = "It cost 17,000 euros a year; call +44 20 7946 0149 on the matter. Write to a1@b.example about it, please. Nothing else."
    assert key_facts(text, 3) == ["It cost 17,000 euros a year"]


def test_makes_a_first_letter_small_only_for_common_words() -> None:
    assert lower_first("Lifts in Gannet Tower", "two lifts stood still") == "lifts in Gannet Tower"
    assert lower_first("Gannet Tower", "the tower") == "Gannet Tower"
