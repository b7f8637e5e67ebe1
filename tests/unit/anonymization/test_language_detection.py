"""Detecting the language of a text."""

import pytest

from services.anonymization.recognise.languages.detection import LanguageDetector

DETECT = LanguageDetector()


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The steering group meets every second Tuesday and decides on the open points of the plan.", "en"),
        ("Der Lenkungskreis trifft sich jeden zweiten Dienstag und entscheidet über die offenen Punkte.", "de"),
        ("Le comité se réunit un mardi sur deux et décide des points ouverts du plan.", "fr"),
    ],
)
def test_detects_the_language_of_a_sentence(text: str, language: str) -> None:
    assert DETECT(text) == language


@pytest.mark.parametrize("text", ["", "OK", "42 17 3.5", "| 1 | 2 |\n| 3 | 4 |"])
def test_is_empty_if_the_language_is_uncertain(text: str) -> None:
    assert DETECT(text) == ""
