"""Surrogates keep form, agree with each other, and hold."""

import random

import pytest

from services.anonymization.adapters.draws import DRAWS, code
from services.anonymization.adapters.lexicon import Lexicon, fold
from services.anonymization.adapters.recognisers.patterns import is_iban, is_luhn
from services.anonymization.adapters.surrogates import People, Surrogates
from tests.unit.anonymization.fakes import MemoryVault

KEY = b"s" * 32


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return Lexicon.load(["the"])


@pytest.fixture
def vault() -> MemoryVault:
    return MemoryVault()


@pytest.fixture
def surrogates(lexicon: Lexicon, vault: MemoryVault) -> Surrogates:
    return Surrogates(vault, lexicon, KEY)


def test_all_forms_of_a_name_agree(surrogates: Surrogates) -> None:
    people = People.of(["Ngozi Okafor"])
    given, family = surrogates.person("Ngozi Okafor", "", people).split()
    assert surrogates.person("Okafor", "Ms", People()) == family
    assert surrogates.person("Ngozi", "", people) == given
    assert surrogates.person("N. Okafor", "", people) == f"{given[0]}. {family}"
    assert surrogates.person("OKAFOR", "", people) == family.upper()
    assert surrogates.mail("ngozi.okafor@firm.example", people).startswith(f"{fold(given)}.{fold(family)}@")
    assert surrogates.mail("n.okafor@firm.example", people).startswith(f"{fold(given)[0]}.{fold(family)}")


def test_gender_is_kept(surrogates: Surrogates, lexicon: Lexicon) -> None:
    for name, gender in (("Sarah Jenkins", "f"), ("Nigel Harcourt", "m"), ("Solène Kervadec", "f")):
        known = lexicon.given(surrogates.person(name, "", People()).split()[0])
        assert known is not None and known.gender == gender


def test_titles_particles_and_hyphens_keep_their_form(surrogates: Surrogates) -> None:
    assert surrogates.person("Dr Adaeze Okafor", "", People()).startswith("Dr ")
    assert " van " in surrogates.person("Doortje van Aalst", "", People())


def test_organisations_keep_kind_and_legal_form(surrogates: Surrogates) -> None:
    whole = surrogates.client("Meridian Biologics Distribution Ltd")
    assert whole.endswith(" Biologics Distribution Ltd") and "Meridian" not in whole
    assert surrogates.client("Meridian Biologics") == whole.removesuffix(" Distribution Ltd")
    assert surrogates.mail("refunds.desk@meridian-biologics.example", People()).startswith("refunds.desk@")
    assert "meridian" not in surrogates.mail("refunds.desk@meridian-biologics.example", People())


def test_two_values_never_share_a_surrogate(surrogates: Surrogates, vault: MemoryVault) -> None:
    issued = [surrogates.other("PROJECT_CODE", f"HL-2025-{number:03d}") for number in range(300)]
    assert len(set(issued)) == 300


def test_replicas_over_one_vault_agree(lexicon: Lexicon, vault: MemoryVault) -> None:
    one, two = Surrogates(vault, lexicon, KEY), Surrogates(vault, lexicon, KEY)
    for name in ("Sarah Jenkins", "Rajiv Menon"):
        assert one.person(name, "", People()) == two.person(name, "", People())
    assert one.address("41 Quarry Lane, Tarnbridge TB4 2QN") == two.address(
        "41 Quarry Lane,\nTarnbridge TB4 2QN"
    ).replace("\n", ", ")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("IBAN", "GB33 BUKB 2020 1555 5555 55"),
        ("CREDIT_CARD", "4111 1111 1111 1111"),
        ("PHONE_NUMBER", "+44 20 7946 0112"),
        ("NATIONAL_ID", "JG 10 37 59 A"),
        ("IP_ADDRESS", "10.24.8.0"),
        ("DATE_OF_BIRTH", "3 November 1996"),
    ],
)
def test_values_with_a_form_keep_it(kind: str, value: str) -> None:
    drawn = DRAWS[kind](random.Random(1), value, 0)
    assert (drawn != value and drawn[0] in (value[0], "Q")) or kind == "DATE_OF_BIRTH"
    if kind == "IBAN":
        assert is_iban(drawn) and len(drawn) == len(value)
    if kind == "CREDIT_CARD":
        assert is_luhn(drawn)
    if kind == "PHONE_NUMBER":
        assert drawn.startswith("+44 20 ") and len(drawn) == len(value)


def test_codes_keep_prefix_and_year() -> None:
    assert code(random.Random(1), "HL-2025-068", 0).startswith("HL-2025-")
    assert code(random.Random(1), "HL-EMP-20417", 0).startswith("HL-EMP-")
