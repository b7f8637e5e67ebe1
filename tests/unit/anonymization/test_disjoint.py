"""Surrogates are not true values, not even of documents that arrive later."""

import json
import random
from pathlib import Path

import pytest

from services.anonymization.recognise.lexicon import Lexicon
from services.anonymization.surrogates.forms import normal
from services.anonymization.surrogates.people import People
from services.anonymization.surrogates.surrogates import Surrogates
from tests.unit.anonymization.fakes import MemoryVault

GOLD = Path(__file__).parents[3] / "deploy" / "sample" / "gold.json"
OF_WORDS = ("PERSON", "CLIENT", "EMAIL_ADDRESS", "ADDRESS")
KEYS = [bytes([number]) * 32 for number in range(20)]


@pytest.fixture(scope="module")
def surrogates() -> Surrogates:
    return Surrogates(MemoryVault(), Lexicon.load(["the"]), KEYS[0])


def test_no_value_of_the_sample_is_drawn_for_another_in_any_order(surrogates: Surrogates) -> None:
    documents = json.loads(GOLD.read_text(encoding="utf-8"))["documents"].values()
    values = {(entry["type"], entry["value"]) for entries in documents for entry in entries}
    formed = sorted((kind, value) for kind, value in values if kind not in OF_WORDS)
    true = {(kind, normal(kind, value)) for kind, value in formed}
    drawn_true = []
    for key in KEYS:
        fresh = surrogates.with_issuer(MemoryVault(), key)
        for kind, value in random.Random(key).sample(formed, len(formed)):
            drawn = fresh.other(kind, value)
            drawn_true += [kind] if (kind, normal(kind, drawn)) in true else []
    assert len(formed) > 200
    assert drawn_true == []


@pytest.mark.parametrize(
    ("kind", "form", "numbers"),
    [("PROJECT_CODE", "HL-2025-{:03d}", range(1000)), ("EMPLOYEE_CODE", "HL-EMP-{:05d}", range(0, 100_000, 100))],
)
def test_no_code_that_a_company_may_use_is_ever_drawn(
    surrogates: Surrogates, kind: str, form: str, numbers: range
) -> None:
    fresh = surrogates.with_issuer(MemoryVault())
    codes = [form.format(number) for number in numbers]
    drawn = [fresh.other(kind, value) for value in codes]
    assert len(set(drawn)) == len(codes) and not set(drawn) & set(codes)
    assert all(surrogate.startswith(form.partition("{")[0]) and len(surrogate) == len(codes[0]) for surrogate in drawn)


def test_a_number_without_letters_stays_a_number(surrogates: Surrogates) -> None:
    assert surrogates.with_issuer(MemoryVault()).other("ACCOUNT_NUMBER", "20-20-15").replace("-", "").isdigit()


def test_a_name_rarely_has_the_same_stand_in_in_two_installations(surrogates: Surrogates) -> None:
    keys = [number.to_bytes(32, "big") for number in range(3000)]
    drawn = {surrogates.with_issuer(MemoryVault(), key).person("Harriet Penhaligon", "", People()) for key in keys}
    assert len(drawn) > 2_990
