"""Detecting the language of a text."""

from functools import cache

import pytest

from services.anonymization.recognise.languages.detection import LanguageDetector


@cache
def detector() -> LanguageDetector:
    """Loaded by the first test that needs it, not by every process that collects the tests: it takes a second."""
    return LanguageDetector()


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The steering group meets every second Tuesday and decides on the open points of the plan.", "en"),
        ("Der Lenkungskreis trifft sich jeden zweiten Dienstag und entscheidet über die offenen Punkte.", "de"),
        ("Le comité se réunit un mardi sur deux et décide des points ouverts du plan.", "fr"),
    ],
)
def test_detects_the_language_of_a_sentence(text: str, language: str) -> None:
    assert detector()(text) == language


@pytest.mark.parametrize("text", ["", "OK", "42 17 3.5", "| 1 | 2 |\n| 3 | 4 |"])
def test_is_empty_if_the_language_is_uncertain(text: str) -> None:
    assert detector()(text) == ""
