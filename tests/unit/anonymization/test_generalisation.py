"""Dates in many forms, and generalised dates, amounts, ages and addresses."""

import random
from datetime import date

import pytest

from services.anonymization.domain import Coarseness, merge
from services.anonymization.surrogates.dates import read
from services.anonymization.surrogates.generalisation import find, generalise
from services.anonymization.surrogates.generators import birth_date

FINE = Coarseness(date_time="month", date_of_birth="month", address="town")
WIDE = Coarseness(date_time="year", date_of_birth="year", address="postcode-area", money_bands=(50_000,), age_years=25)


@pytest.mark.parametrize(
    ("value", "rewritten"),
    [
        ("3 November 1996", "22 April 2001"),
        ("3rd November 1996", "22nd April 2001"),
        ("NOVEMBER 3, 1996", "APRIL 22, 2001"),
        ("Nov 3rd, 1996", "Apr 22nd, 2001"),
        ("1996-11-03", "2001-04-22"),
        ("03/11/1996", "22/04/2001"),
        ("3.11.96", "22.04.01"),
        ("3. November 1996", "22. April 2001"),
        ("3 novembre 1996", "22 avril 2001"),
    ],
)
def test_a_date_is_rewritten_in_the_same_form(value: str, rewritten: str) -> None:
    written = read(value)
    assert written is not None and written.whole == date(1996, 11, 3)
    assert written.rewrite(date(2001, 4, 22)) == rewritten


@pytest.mark.parametrize(
    "value",
    ["00.00.0000", "00/00/2019", "12.00.2019", "00/13/1996", "0000-00-00", "01.01.0000", "29.02.2023", "99.99.99"],
)
def test_what_is_written_like_a_date_but_is_none_is_not_read(value: str) -> None:
    written = read(value)
    assert written is None or written.whole is None


@pytest.mark.parametrize("value", ["9999-12-31", "0001-01-01"])
def test_another_date_near_the_end_of_the_calendar_is_drawn_inwards(value: str) -> None:
    drawn = {birth_date(random.Random(seed), value, 0) for seed in range(20)}
    assert len(drawn) > 1 and all(abs(date.fromisoformat(each).year - int(value[:4])) <= 4 for each in drawn)


def test_a_date_is_read_month_first_if_day_first_gives_no_date() -> None:
    written = read("11/23/1996")
    assert written is not None and written.whole == date(1996, 11, 23)
    assert written.rewrite(date(2001, 4, 2)) == "04/02/2001"


@pytest.mark.parametrize(
    ("kind", "value", "fine", "wide"),
    [
        ("DATE_TIME", "3 March 2025", "March 2025", "2025"),
        ("DATE_TIME", "03.03.2025", "03.2025", "2025"),
        ("DATE_TIME", "2025-03-04T10:00", "2025-03", "2025"),
        ("DATE_TIME", "4 March", "March", None),
        ("DATE_TIME", "last week", "last week", "last week"),
        ("DATE_TIME", "10:45", None, None),
        ("DATE_OF_BIRTH", "3 November 1996", "November 1996", "1996"),
        ("ADDRESS", "41 Quarry Lane, Tarnbridge TB4 2QN", "Tarnbridge", "TB"),
        ("ADDRESS", "41 Quarry Lane\nOld Mill\nTarnbridge\nTB4 2QN", "Tarnbridge", "TB"),
        ("ADDRESS", "Lindenstraße 12, 50674 Köln", "Köln", "50"),
        ("ADDRESS", "12 Elm Street, Springfield, IL 62704", "Springfield, IL", "627"),
        ("ADDRESS", "41 Quarry Lane", None, None),
        ("MONEY", "£48,250", "£10,000 to £100,000", "under £50,000"),
        ("MONEY", "EUR 48.250,00", "EUR 10,000 to EUR 100,000", "under EUR 50,000"),
        ("MONEY", "$3.2 million", "$1,000,000 to $10,000,000", "over $50,000"),
        ("MONEY", "£99", "under £1,000", "under £50,000"),
        ("AGE", "45", "40-49", "25-49"),
        ("AGE", "forty", None, None),
    ],
)
def test_values_become_coarser_or_are_not_understood(kind: str, value: str, fine: str | None, wide: str | None) -> None:
    assert (generalise(kind, value, FINE), generalise(kind, value, WIDE)) == (fine, wide)


def test_figures_are_found_by_their_form() -> None:
    text = "Aged 45, she earned £48,250 (or 5,000 EUR) on 4 March and 3 March 2025; a 30-year-old paid $3m. Room 1999, page 12, you may 5."
    findings = merge(find(text, {"DATE_TIME", "MONEY", "AGE"}))
    assert [(finding.entity_type, text[finding.start : finding.end]) for finding in findings] == [
        ("AGE", "45"),
        ("MONEY", "£48,250"),
        ("MONEY", "5,000 EUR"),
        ("DATE_TIME", "4 March"),
        ("DATE_TIME", "3 March 2025"),
        ("AGE", "30"),
        ("MONEY", "$3m"),
    ]
    assert list(find(text, set())) == []
