import pytest

from services.anonymization.adapters.language import Languages

LANGUAGES = Languages()


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The steering group meets every second Tuesday and decides on the open points of the plan.", "en"),
        ("Der Lenkungskreis trifft sich jeden zweiten Dienstag und entscheidet über die offenen Punkte.", "de"),
        ("Le comité se réunit un mardi sur deux et décide des points ouverts du plan.", "fr"),
    ],
)
def test_tells_the_language_of_a_sentence(text: str, language: str) -> None:
    assert LANGUAGES(text) == language


@pytest.mark.parametrize("text", ["", "OK", "42 17 3.5", "| 1 | 2 |\n| 3 | 4 |"])
def test_says_nothing_where_the_language_cannot_be_told(text: str) -> None:
    assert LANGUAGES(text) == ""
