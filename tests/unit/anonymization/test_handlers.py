"""Texts and values at the barrier, without stores."""

import random
from dataclasses import replace
from datetime import date

import pytest

from services.anonymization.domain import (
    Action,
    Change,
    Coarseness,
    Finding,
    Passed,
    RefusedDocument,
    apply_changes,
    merge,
    move_spans,
)
from services.anonymization.handlers import anonymize_texts
from services.anonymization.surrogates.dates import read
from services.anonymization.surrogates.generalisation import find, generalise
from services.anonymization.surrogates.generators import birth_date
from services.anonymization.wire import to_event, to_ingested
from tailor.api.events.v1 import documents_pb2
from tailor.errors import InvalidArgument, Reason
from tailor.values import Labels, Span, SpanKind
from tests.unit.anonymization.fakes import INGESTED, REF, OneNameAnonymizer


def test_the_labels_of_a_typed_text_reach_the_anonymizer() -> None:
    anonymizer = OneNameAnonymizer()
    anonymize_texts(anonymizer, ("Ms Okafor.",), Labels("wiki", "people"))
    anonymize_texts(anonymizer, ("Ms Okafor.",))
    assert anonymizer.labels == [Labels("wiki", "people"), Labels()]


def test_an_incomplete_event_names_the_missing_fields() -> None:
    with pytest.raises(InvalidArgument, match=r"version\.sequence, text\.uri") as refused:
        to_ingested(documents_pb2.DocumentIngested(document_id="doc_1"))
    assert refused.value.reason is Reason.INCOMPLETE_EVENT


def test_the_same_outcome_gives_the_same_bytes() -> None:
    outcome = Passed(INGESTED, REF, 3, {"PERSON": 1, "CLIENT": 2}, "policy", 1)
    first, second = (to_event(outcome)[1].SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_the_counts_of_what_ingestion_skipped_are_passed_on() -> None:
    _, message = to_event(Passed(replace(INGESTED, removed={"navigation": 7}), REF, 3, {}, "policy", 1))
    assert isinstance(message, documents_pb2.DocumentAnonymized) and dict(message.removed) == {"navigation": 7}


@pytest.mark.parametrize(("reason", "sequence"), [("TIMEOUT", INGESTED.sequence), ("UNREADABLE", 0)])
def test_a_replayed_text_that_the_barrier_refuses_names_the_version_and_its_erasure(reason: str, sequence: int) -> None:
    replayed = replace(INGESTED, supersede_id="ers_1")
    _, message = to_event(RefusedDocument(replayed, "hint", 1, reason))
    assert isinstance(message, documents_pb2.DocumentRejected)
    assert (message.supersede_id, message.version.sequence) == ("ers_1" if sequence else "", sequence)
    _, plain = to_event(RefusedDocument(INGESTED, "hint", 1, reason))
    assert isinstance(plain, documents_pb2.DocumentRejected) and not plain.HasField("version")


@pytest.mark.parametrize("texts", [("x" * 1_000_001,), ("x" * 600_000,) * 2, ("x",) * 1_025])
def test_typed_texts_have_a_limit(texts: tuple[str, ...]) -> None:
    assert anonymize_texts(OneNameAnonymizer(), ("Okafor", "Ask Okafor")).texts == ("Ward", "Ask Ward")
    with pytest.raises(InvalidArgument):
        anonymize_texts(OneNameAnonymizer(), texts)


def test_the_rest_of_a_losing_finding_stays_personal_if_it_has_digits_or_words_of_a_name() -> None:
    text = "Sarah Jenkins London +44 7700900415 Annual Report"
    number = text.index("+")
    findings = [
        Finding(0, 20, "PERSON", 0.6),
        Finding(14, 20, "ADDRESS", 0.9),
        Finding(number, number + 14, "PHONE_NUMBER", 0.7),
        Finding(number + 4, number + 14, "NATIONAL_ID", 0.95),
        Finding(number + 4, len(text), "CLIENT", 0.4),
    ]
    merged = [(finding.entity_type, text[finding.start : finding.end]) for finding in merge(findings, text)]
    assert merged == [
        ("PERSON", "Sarah Jenkins"),
        ("ADDRESS", "London"),
        ("PHONE_NUMBER", "+44"),
        ("NATIONAL_ID", "7700900415"),
        ("CLIENT", "Annual Report"),
    ]


TEXT = "Ngozi signs.\n\nOkafor reads, and Ngozi too."
PAGE = TEXT.index("Okafor")


def change(start: int, end: int, replacement: str) -> Change:
    return Change(start, end, "PERSON", Action.SURROGATE, replacement)


def page(start: int, end: int) -> Span:
    return Span(SpanKind.PAGE, 1, start, end)


@pytest.mark.parametrize("surrogate", ["Al", "Ngoni", "Bartholomew"])
def test_a_page_keeps_its_beginning_for_surrogates_of_any_length(surrogate: str) -> None:
    changes = [
        change(0, 5, surrogate),
        change(PAGE, PAGE + 6, "Ward"),
        change(TEXT.rindex("Ngozi"), len(TEXT) - 5, surrogate),
    ]
    after = TEXT.replace("Ngozi", surrogate).replace("Okafor", "Ward")
    assert apply_changes(TEXT, changes) == after
    first, second = move_spans([page(0, PAGE - 2), page(PAGE, len(TEXT))], changes)
    assert after[first.start : first.end] == f"{surrogate} signs."
    assert after[second.start : second.end] == f"Ward reads, and {surrogate} too."


def test_a_value_over_a_page_break_belongs_to_the_page_before() -> None:
    changes = [change(PAGE, PAGE + 6, "Bartholomew")]
    first, second = move_spans([page(0, PAGE + 3), page(PAGE + 3, len(TEXT))], changes)
    after = TEXT.replace("Okafor", "Bartholomew")
    assert after[first.start : first.end].endswith("Bartholomew")
    assert after[second.start : second.end] == " reads, and Ngozi too."


def test_a_span_within_a_replaced_value_is_dropped() -> None:
    assert move_spans([page(PAGE + 1, PAGE + 4)], [change(PAGE, PAGE + 6, "Ward")]) == ()


def test_without_changes_spans_stay() -> None:
    spans = (page(0, 5), page(5, 9))
    assert move_spans(spans, []) == spans


def test_changes_that_touch_stay_apart() -> None:
    assert apply_changes("AbCd", [change(0, 2, "x"), change(2, 4, "yz")]) == "xyz"
    assert apply_changes("nothing here", []) == "nothing here" and apply_changes("", []) == ""


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
