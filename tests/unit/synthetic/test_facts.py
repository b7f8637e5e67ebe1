"""Values and names in answers, the facts that support them, and what a prompt does not support."""

import pytest

from services.synthetic.rows.facts import find_runs, list_facts
from services.synthetic.rows.grounding import unsupported


def runs(sentence: str, language: str = "en") -> list[str]:
    return [run.text for run in find_runs(sentence, language)]


@pytest.mark.parametrize(
    ("language", "sentence", "expected"),
    [
        ("en", "Both motors cost £17,600 and last 12 months.", ["£17,600", "12 months"]),
        ("en", "We met on 14 Nov 2025, as agreed with Dr. Ann Lee.", ["14 Nov 2025", "Dr. Ann Lee"]),
        ("en", "It was filed May 4, 2026 under ISO-27001 [12].", ["May 4, 2026", "ISO-27001", "[12]"]),
        ("en", "The rate of the Bank of England fell to 4.5%.", ["Bank of England", "4.5%"]),
        ("en", "The rate was asked for in Leeds.", ["Leeds"]),
        (
            "de",
            "Das Team zahlte am 10. Juni 2025 genau 2,4 Mio. € an die Nordhafen GmbH.",
            ["Das Team", "10. Juni 2025", "2,4 Mio. €", "Nordhafen GmbH"],
        ),
        ("de", "Nach § 4 Abs. 2 gilt die Frist für jede Kasse.", ["§ 4 Abs. 2"]),
        ("fr", "Le 3 mars 2025, Camille Fournier a signé.", ["Le 3 mars 2025", "Camille Fournier"]),
        ("es", "Se firmó el 3 de mayo de 2025 en Sevilla.", ["3 de mayo de 2025", "Sevilla"]),
        ("ja", "二〇二五年に17本の鍵が不足した。", ["17"]),
        ("en", "Nothing was found, and nobody asked.", []),
    ],
)
def test_finds_values_and_names_word_for_word(language: str, sentence: str, expected: list[str]) -> None:
    found = runs(sentence, language)
    assert [text for text in expected if not any(text in run for run in found)] == []
    assert len(found) == len(expected)
    assert all(run in sentence for run in found)


def test_a_capital_noun_in_german_is_no_name_but_a_name_of_two_words_is() -> None:
    assert runs("Danach prüfte die Leitung den Bestand der Kasse mit Lotte Friedrichsen.", "de") == [
        "Lotte Friedrichsen"
    ]


def test_a_run_does_not_cross_quotation_marks() -> None:
    assert runs("Zu „Reisekosten“ steht nichts.", "de") == []


def test_facts_are_clauses_with_what_is_around_the_value() -> None:
    found = find_runs(
        "The motors, which are old, cost £17,600 a year; nobody complains about that in the whole of the house.", "en"
    )
    assert list_facts(found, "", 100) == ["cost £17,600 a year"]


def test_facts_of_a_dense_answer_are_bare_values_of_one_sentence_together() -> None:
    found = find_runs("Paid 10 to Ann Lee, 20 to Bo Ray, 30 to Cy Mott.", "en")
    assert list_facts(found, "", 48) == ["Paid 10; Ann Lee; 20; Bo Ray; 30; Cy Mott"]


def test_known_values_are_no_facts() -> None:
    assert list_facts(find_runs("It cost £17,600 here, in Leeds.", "en"), "Leeds paid £17,600 here", 100) == []


def test_an_answer_is_unsupported_where_a_value_or_name_is_not_in_the_prompt() -> None:
    prompt = "Facts:\n- 14   November\n2025\n- Ann Lee"
    assert unsupported("On 14 November 2025 Ann Lee wrote 3 letters to Bo Ray.", prompt, "en") == ["3", "Bo Ray"]
    assert unsupported("Nobody wrote.", prompt, "en") == []


@pytest.mark.parametrize(
    ("answer", "prompt", "missing"),
    [
        ("The price was 17,600 euros.", "a price of €17,600", []),
        ("It rose by 4.5 percent.", "4.5% more", []),
        ("It rose by 4.5 percent.", "14.5% more", ["4.5"]),
        ("There were 3 of them.", "13 or 3.5 or 2023", ["3"]),
        ("We found 3, of all.", "3. Found", []),
        ("The order AB-12 came.", "order AB-12x", []),
        ("In Leeds it rained.", "Leeds", []),
        ("Then Ann Lee came.", "Joann Lee", ["Ann Lee"]),
        ("On May 4, 2026 it ended.", "May 4, 2026", []),
    ],
)
def test_numbers_are_compared_without_signs_and_never_as_parts_of_others(
    answer: str, prompt: str, missing: list[str]
) -> None:
    assert unsupported(answer, prompt, "en") == missing


def test_numbers_of_a_list_are_supported_with_their_words() -> None:
    assert unsupported("1. Order lockers\n2. Tell the staff", "- 1. Order\n- 2. Tell", "en") == []
    assert unsupported("1. Order lockers\n3. Go home", "- 1. Order", "en") == ["3"]
