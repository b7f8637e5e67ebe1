from decimal import Decimal

import pytest

from services.evaluation.metrics.figures import find_values


def figures(text: str, language: str = "en") -> list[tuple[Decimal, str]]:
    return sorted((figure.value, figure.unit) for figure in find_values(text, language).figures)


@pytest.mark.parametrize(
    ("text", "language", "value", "unit"),
    [
        ("€4.1 million", "en", "4100000", "EUR"),
        ("EUR 4.1m", "en", "4100000", "EUR"),
        ("4,100,000 euros", "en", "4100000", "EUR"),
        ("4,1 Mio. €", "de", "4100000", "EUR"),
        ("4.100.000 EUR", "de", "4100000", "EUR"),
        ("4 100 000 €", "fr", "4100000", "EUR"),
        ("12 %", "en", "12", "%"),
        ("12 percent", "en", "12", "%"),
        ("12,0 Prozent", "de", "12", "%"),
        ("three", "en", "3", ""),
        ("drei", "de", "3", ""),
        ("1,234", "en", "1234", ""),
        ("1,234", "de", "1.234", ""),
        ("$3bn", "en", "3000000000", "USD"),
    ],
)
def test_one_value_has_one_form(text: str, language: str, value: str, unit: str) -> None:
    assert figures(f"about {text} in all", language) == [(Decimal(value), unit)]


@pytest.mark.parametrize(
    "text",
    [
        "30 June 2026",
        "30th of June 2026",
        "June 30, 2026",
        "2026-06-30",
        "30.06.2026",
        "30. Juni 2026",
        "30 juin 2026",
        "06/30/2026",
    ],
)
def test_one_date_has_one_form(text: str) -> None:
    values = find_values(f"due on {text}, in full")
    assert values.dates == {"2026-06-30"}
    assert not values.figures


def test_quarters_and_months_are_dates() -> None:
    assert find_values("Q2 2026").dates == find_values("the second quarter of 2026").dates == {"2026-Q2"}
    assert find_values("in May 2026").dates == {"2026-05"}


def test_lists_headings_and_citations_are_not_figures() -> None:
    assert not find_values("1. First\n2) Second\n## 3 Scope\n- plain [4]").figures


def test_codes_are_not_figures() -> None:
    assert not find_values("ISO27001 and A12b").figures


def test_a_percentage_is_not_a_number() -> None:
    assert not find_values("12 % of them").agrees_with(find_values("12 of them"))
    assert find_values("EUR 12").agrees_with(find_values("12 in all"))
