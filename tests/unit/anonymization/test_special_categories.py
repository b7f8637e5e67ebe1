"""Statements about a person in the special categories are found; the same words about things are not."""

import pytest

from services.anonymization.domain import SPECIAL_CATEGORIES
from services.anonymization.recognise.special_categories import LANGUAGES, SpecialCategoryRecogniser, SpecialWords

GIVEN = ("Anna", "Christian", "Ravi", "Tom")


def find(text: str, language: str = "en") -> list[tuple[str, str]]:
    findings = SpecialCategoryRecogniser(language, lambda word: word in GIVEN).find(text)
    return [(finding.entity_type, text[finding.start : finding.end]) for finding in findings]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("She is a practising Catholic.", [("RELIGION", "Catholic")]),
        ("Anna wears a hijab to work.", [("RELIGION", "wears a hijab")]),
        ("He was a registered Democrat for years.", [("POLITICAL_OPINION", "registered Democrat")]),
        ("My colleague joined the union in May.", [("TRADE_UNION", "joined the union")]),
        ("The employee has type 2 diabetes.", [("HEALTH", "type 2 diabetes")]),
        ("He was diagnosed with Guillain-Barré syndrome in March.", [("HEALTH", "Guillain-Barré syndrome")]),
        ("Mr. Harrow is HIV-positive.", [("HEALTH", "HIV-positive")]),
        ("Tom is openly gay.", [("SEXUAL_ORIENTATION", "openly gay")]),
        ("Her parents are of Turkish descent.", [("ETHNIC_ORIGIN", "of Turkish descent")]),
        ("We took his fingerprints at the gate.", [("BIOMETRIC_DATA", "fingerprints")]),
        ("Her BRCA1 mutation is known.", [("GENETIC_DATA", "BRCA1 mutation")]),
        ("He pleaded guilty in 2019.", [("CRIMINAL_RECORD", "pleaded guilty")]),
        ("Religion: Greek Orthodox\nUnit: 4", [("RELIGION", "Greek Orthodox")]),
        ("| Diagnosis: chronic cough | next |", [("HEALTH", "chronic cough")]),
    ],
)
def test_finds_statements_about_a_person(text: str, found: list[tuple[str, str]]) -> None:
    assert find(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "The Catholic church owns the plot, she said.",
        "The diabetes market grows, and the manager is pleased.",
        "Cancer research received a grant. She signed it.",
        "Cancer is treated in three wards.",
        "The fingerprint of the key is printed below.",
        "Christian Berger signed, and Ravi Jain agreed with him.",
        "Thanks to Anna, Christian Clauss and Arpit Jain for their work on it.",
        "Religion: none",
        "The union of both sets is empty.",
        "The alarm was disabled by the manager.",
        "The board is charged with oversight, she wrote.",
    ],
)
def test_the_same_words_about_things_are_not_found(text: str) -> None:
    assert find(text) == []


@pytest.mark.parametrize(
    ("language", "text", "kinds"),
    [
        ("de", "Frau Weber ist schwanger und Mitglied der IG Metall.", ["HEALTH", "TRADE_UNION"]),
        ("de", "Der Mitarbeiter leidet an Morbus Bechterew.", ["HEALTH"]),
        ("de", "Konfession: evangelisch", ["RELIGION"]),
        ("fr", "La salariée est syndiquée à la CGT et diabétique.", ["TRADE_UNION", "HEALTH"]),
        ("es", "El trabajador está afiliado a CCOO y su hija es diabética.", ["TRADE_UNION", "HEALTH"]),
        ("it", "La dipendente è iscritta alla CGIL e soffre di emicrania.", ["TRADE_UNION", "HEALTH"]),
        ("nl", "De werknemer is lid van de FNV en heeft een burn-out.", ["TRADE_UNION", "HEALTH"]),
        ("pl", "Pracownik choruje na cukrzycę, jego żona jest w ciąży.", ["HEALTH", "HEALTH"]),
        ("pt", "A funcionária está grávida e é sindicalizada.", ["HEALTH", "TRADE_UNION"]),
    ],
)
def test_every_language_has_its_own_words(language: str, text: str, kinds: list[str]) -> None:
    assert [kind for kind, _ in find(text, language)] == kinds


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_names_terms_and_labels_of_every_category(language: str) -> None:
    words = SpecialWords.load(language)
    assert words is not None and words.cues and words.stops
    kinds = {term.entity_type for terms in words.terms.values() for term in terms}
    assert kinds == set(SPECIAL_CATEGORIES) and all(words.labels[kind] for kind in SPECIAL_CATEGORIES)


def test_a_language_without_lists_finds_nothing() -> None:
    assert find("Hun er gravid.", "da") == []
