"""Which values of an edited text occur in the texts that passed before."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.anonymization.domain import Finding
from services.anonymization.recognise import budget
from services.anonymization.surrogates.known_values import PassedValues
from tailor.errors import DeadlineExceeded

TEXT = "Dear Ms Ward, please ask Ines\nWard-Lang of Norbury Mills. Pay GB82 WEST 1234 5698 before noon, says Mills."


def find(kind: str, value: str) -> Finding:
    start = TEXT.index(value)
    return Finding(start, start + len(value), kind, 1.0)


FINDINGS = [
    find("PERSON", "Ward"),
    find("PERSON", "Ines\nWard-Lang"),
    find("CLIENT", "Norbury Mills"),
    find("IBAN", "GB82 WEST 1234 5698"),
]
PASSED = PassedValues(TEXT, FINDINGS)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("PERSON", "Ward"),
        ("PERSON", "Ines Ward-Lang"),
        ("PERSON", "Ines\n\nWard-Lang"),
        ("PERSON", "Ines"),
        ("CLIENT", "Norbury Mills"),
        # Detectors take names of companies, people and places for one another.
        ("PERSON", "Norbury"),
        ("LOCATION", "Norbury"),
        ("IBAN", "GB82 WEST 1234 5698"),
        # No detector knew a type for it.
        ("DATE_TIME", "noon"),
    ],
)
def test_a_value_that_stands_there_as_whole_words_passed(kind: str, value: str) -> None:
    assert PASSED.has(kind, value)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("PERSON", "War"),
        ("PERSON", "ward"),
        ("PERSON", "Ms Lang"),
        ("PERSON", "Ward Ines"),
        ("PERSON", "Ines Ward"[:-1]),
        ("CLIENT", "Norbury Mill"),
        ("PHONE_NUMBER", "1234 5698"),
        ("ACCOUNT_NUMBER", "GB82 WEST 1234 5698"),
        ("IBAN", "GB82 WEST 1234 5699"),
        ("IBAN", "GB82WEST12345698"),
        ("EMAIL_ADDRESS", "Ward"),
        ("PERSON", ""),
        ("PERSON", " "),
    ],
)
def test_another_value_or_the_same_one_of_another_type_did_not_pass(kind: str, value: str) -> None:
    assert not PASSED.has(kind, value)


def test_one_place_without_a_known_type_is_enough() -> None:
    text = "Call 5698 or 5698."
    known = [Finding(5, 9, "IBAN", 1.0)]
    assert PassedValues(text, known).has("PHONE_NUMBER", "5698")
    both = [*known, Finding(13, 17, "IBAN", 1.0)]
    assert not PassedValues(text, both).has("PHONE_NUMBER", "5698")


@given(st.text(max_size=60), st.text(min_size=1, max_size=12))
def test_what_does_not_stand_there_never_passes(text: str, value: str) -> None:
    squeezed = " ".join(text.split())
    if PassedValues(text, ()).has("PERSON", value):
        assert " ".join(value.split()) in squeezed
        assert value.strip()


@given(st.lists(st.from_regex(r"[A-Z][a-z]{1,8}", fullmatch=True), min_size=1, max_size=4), st.text(max_size=20))
def test_words_between_spaces_always_pass(words: list[str], around: str) -> None:
    value = " ".join(words)
    assert PassedValues(f"{around} {value} {around}", ()).has("PERSON", value)


def repeat_name(times: int) -> PassedValues:
    text = "Ann. " * times
    return PassedValues(text, [Finding(start, start + 3, "PERSON", 1.0) for start in range(0, len(text), 5)])


def test_many_names_that_begin_like_many_others_are_looked_up_in_seconds() -> None:
    passed = repeat_name(12_000)
    start = time.process_time()
    assert not any(passed.has("PERSON", f"Ann Berg{number}") for number in range(5_000))
    assert time.process_time() - start < 12


def test_looking_up_ends_with_the_time_of_the_text() -> None:
    with budget.limit(0), pytest.raises(DeadlineExceeded):
        repeat_name(1).has("PERSON", "Ann")
