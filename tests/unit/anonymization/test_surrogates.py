"""Surrogates keep the form of their value, agree with each other, stay the same, and are not true values."""

import json
import random
import re
from pathlib import Path

import phonenumbers
import pytest

from services.anonymization.recognise.checksums import is_iban, is_luhn
from services.anonymization.recognise.lexicon import Lexicon, fold
from services.anonymization.surrogates.forms import normal, repeats
from services.anonymization.surrogates.generators import DRAWS, code
from services.anonymization.surrogates.people import People
from services.anonymization.surrogates.surrogates import Surrogates
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


def test_names_in_small_letters_get_surrogates_in_small_letters(surrogates: Surrogates) -> None:
    given, family = surrogates.person("Ngozi Okafor", "", People.of(["Ngozi Okafor"])).split()
    people = People.of(["Ngozi Okafor"])
    assert surrogates.person("ngozi okafor", "", people) == f"{given} {family}".lower()
    assert surrogates.person("okafor's", "", people) == f"{family.lower()}'s"


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


def test_codes_grow_longer_when_unused_ones_run_out(surrogates: Surrogates) -> None:
    issued = [surrogates.other("CONTRACT", f"{letter}-{number}") for letter in "KKLM" for number in range(10)]
    assert len(set(issued)) == 30
    assert {len(code(random.Random(1), "K-1", attempt)) for attempt in (0, 40, 41, 140, 141, 399)} == {3, 4, 5, 7}


def test_replicas_over_one_vault_agree(lexicon: Lexicon, vault: MemoryVault) -> None:
    first, second = Surrogates(vault, lexicon, KEY), Surrogates(vault, lexicon, KEY)
    for name in ("Sarah Jenkins", "Rajiv Menon"):
        assert first.person(name, "", People()) == second.person(name, "", People())
    assert first.address("41 Quarry Lane, Tarnbridge TB4 2QN") == second.address(
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
def test_values_keep_their_form(kind: str, value: str) -> None:
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


def test_a_title_tells_the_gender_and_that_a_surname_follows(surrogates: Surrogates, lexicon: Lexicon) -> None:
    family = surrogates.person("Sarah Jenkins", "", People()).split()[1]
    assert surrogates.person("Jenkins", "Ms", People()) == family
    assert surrogates.person("SARAH JENKINS", "", People()).split()[1] == family.upper()
    given = lexicon.given(surrogates.person("Andrea Rossini", "Mr", People()).split()[0])
    assert given is not None and given.gender == "m"


def test_double_names_stay_double(surrogates: Surrogates) -> None:
    given, family = surrogates.person("Jean-Pierre Okafor-Hale", "", People()).split()
    assert given.count("-") == family.count("-") == 1 and "Okafor" not in family


@pytest.mark.parametrize(
    ("kind", "spellings"),
    [
        (
            "PHONE_NUMBER",
            ("+44 20 7946 0112", "+442079460112", "0044 20 7946 0112", "020 7946 0112", "+44 (0)20 7946-0112"),
        ),
        ("PHONE_NUMBER", ("+1 212-555-0146", "+1 (212) 555 0146")),
        ("IBAN", ("GB33 BUKB 2020 1555 5555 55", "GB33BUKB20201555555555")),
        ("CREDIT_CARD", ("4111 1111 1111 1111", "4111-1111-1111-1111", "4111111111111111")),
        ("DATE_OF_BIRTH", ("3 November 1996", "1996-11-03", "03/11/1996", "NOVEMBER 3, 1996", "3.11.96")),
        ("NATIONAL_ID", ("JG 10 37 59 A", "JG103759A")),
        ("PROJECT_CODE", ("HL-2025-068", "HL 2025 068")),
    ],
)
def test_all_spellings_of_a_value_share_a_surrogate_in_their_own_spelling(
    surrogates: Surrogates, vault: MemoryVault, kind: str, spellings: tuple[str, ...]
) -> None:
    issued = [surrogates.other(kind, value) for value in spellings]
    assert len(vault.issued) == 1
    assert len({normal(kind, surrogate) for surrogate in issued}) == 1
    assert not set(issued) & set(spellings)
    for value, surrogate in zip(spellings, issued, strict=True):
        if kind != "DATE_OF_BIRTH":
            assert [letter for letter in surrogate if not letter.isalnum()] == [
                letter for letter in value if not letter.isalnum()
            ]
        else:
            assert [letter.isupper() for letter in surrogate if letter.isalpha()][:1] == [
                letter.isupper() for letter in value if letter.isalpha()
            ][:1]


@pytest.mark.parametrize(
    ("value", "country"),
    [
        ("+44 20 7946 0112", 44),
        ("+1 212-555-0146", 1),
        ("+49 30 901820 37", 49),
        ("+358 9 1234 567", 358),
        ("+352 26 12 34", 352),
    ],
)
def test_a_phone_keeps_its_country(surrogates: Surrogates, value: str, country: int) -> None:
    drawn = {surrogates.other("PHONE_NUMBER", value[:-2] + f"{n:02d}") for n in range(60)}
    assert len(drawn) == 60
    assert {phonenumbers.parse(number).country_code for number in drawn} == {country}
    assert {len(number) for number in drawn} == {len(value)}


@pytest.mark.parametrize(
    "value", ["4111111111111111", "5500000000000004", "378282246310005", "6011111111111117", "2223003122003222"]
)
def test_a_card_keeps_its_scheme_and_checksum(surrogates: Surrogates, value: str) -> None:
    drawn = surrogates.other("CREDIT_CARD", value)
    scheme_digits = 4 if value[0] in "26" else 2
    assert (
        drawn != value
        and drawn[:scheme_digits] == value[:scheme_digits]
        and len(drawn) == len(value)
        and is_luhn(drawn)
    )


@pytest.mark.parametrize("value", ["DE89 3704 0044 0532 0130 00", "FR1420041010050500013M02606", "NL91ABNA0417164300"])
def test_an_account_keeps_its_country_and_checksum(surrogates: Surrogates, value: str) -> None:
    drawn = surrogates.other("IBAN", value)
    assert drawn[:2] == value[:2] and len(drawn) == len(value) and is_iban(drawn) and drawn != value


def test_a_locale_is_kept(surrogates: Surrogates, lexicon: Lexicon) -> None:
    for name, locale in (("Solène Kervadec", "fr_FR"), ("Jürgen Schröder", "de_DE")):
        given, family = surrogates.person(name, "", People()).split()
        assert given in [*lexicon.given_names(locale, "f"), *lexicon.given_names(locale, "m")], name
        assert family in lexicon.family_names(lexicon.surname_locale(name.split()[1])), name


def test_capitals_are_kept(surrogates: Surrogates) -> None:
    low, high = "41 Quarry Lane, Tarnbridge TB4 2QN", "41 QUARRY LANE, TARNBRIDGE TB4 2QN"
    assert surrogates.address(high) == surrogates.address(low).upper()
    people = People()
    assert surrogates.mail("S.JENKINS@FIRM.COM", people) == surrogates.mail("s.jenkins@firm.com", people).upper()
    assert surrogates.client("VANTERPOOL LOGISTICS BV").startswith(
        surrogates.client("Vanterpool Logistics BV").split()[0].upper()
    )


def test_no_word_of_the_document_becomes_a_surrogate(lexicon: Lexicon) -> None:
    names = [f"Zora{letter} Quill{letter}" for letter in "abcdefghij"]
    drawn = [Surrogates(MemoryVault(), lexicon, KEY).person(name, "", People()) for name in names]
    text = " met ".join(drawn).upper()
    surrogates = Surrogates(MemoryVault(), lexicon, KEY).for_document(text, [])
    others = [surrogates.person(name, "", People()) for name in names]
    assert not {fold(word) for name in others for word in name.split()} & {fold(word) for word in text.split()}


def test_no_stand_in_contains_the_true_name(lexicon: Lexicon) -> None:
    drawn = [Surrogates(MemoryVault(), lexicon, bytes([key])).person("Ann Lee", "", People()) for key in range(256)]
    assert [name for name in drawn if "ann" in name.split()[0].casefold() or "lee" in name.split()[1].casefold()] == []


@pytest.mark.parametrize(
    ("kind", "value", "candidate", "expected"),
    [
        ("PERSON_GIVEN", "Ann", "Joanna", True),
        ("PERSON_GIVEN", "Zoë", "Zoel", True),
        ("PERSON_GIVEN", "Ann", "Helen", False),
        ("PERSON_FAMILY", "Ng", "King", False),
        ("ADDRESS", "4 Mill Road", "14 Mill Road, Leeds", True),
        ("DATE_OF_BIRTH", "3 November 1996", "1996-11-23", True),
        ("DATE_OF_BIRTH", "1/3/96", "1996-11-01", True),
        ("DATE_OF_BIRTH", "3 November 1996", "1997-11-23", False),
        ("DATE_OF_BIRTH", "3 November 1996", "1996-10-23", False),
        ("IBAN", "GB82 WEST 1234 5698 7654 32", "GB33BUKB20201555555555", False),
    ],
)
def test_a_stand_in_that_spells_out_the_value_repeats_it(kind: str, value: str, candidate: str, expected: bool) -> None:
    assert repeats(kind, candidate, normal(kind, value)) is expected


def test_a_value_of_the_document_in_another_spelling_does_not_become_a_surrogate(lexicon: Lexicon) -> None:
    value = "+44 20 7946 0112"
    drawn = Surrogates(MemoryVault(), lexicon, KEY).other("PHONE_NUMBER", value)
    surrogates = Surrogates(MemoryVault(), lexicon, KEY).for_document(
        "", [("PHONE_NUMBER", drawn.replace("+44 20", "020"))]
    )
    assert surrogates.other("PHONE_NUMBER", value) not in (drawn, value)


@pytest.mark.parametrize(
    ("kind", "value", "form"),
    [
        ("IP_ADDRESS", "10.24.8.0/24", r"10\.\d+\.\d+\.\d+/24"),
        ("IP_ADDRESS", "00:1A:2B:3C:4D:5E", r"(?:[0-9A-F]{2}:){5}[0-9A-F]{2}"),
        ("IP_ADDRESS", "001a.2b3c.4d5e", r"(?:[0-9a-f]{4}\.){2}[0-9a-f]{4}"),
        ("URL", "https://portal.meridian.com/users/sarah.jenkins7", r"https://\w+\.\w+\.example/\w{5}/\w{5}\.\w{8}"),
        ("USERNAME", "sjenkins42", r"[a-z]{8}\d\d"),
        ("VEHICLE", "AB12 CDE", r"[A-Z]{2}\d\d [A-Z]{3}"),
        ("CONTRACT", "ABC/DEF", r"[A-Z]{3}/[A-Z]{3}"),
    ],
)
def test_other_values_keep_their_form(surrogates: Surrogates, kind: str, value: str, form: str) -> None:
    drawn = surrogates.other(kind, value)
    assert re.fullmatch(form, drawn) and drawn != value
    assert drawn.partition(" ")[2] != "CDE"


GOLD = Path(__file__).parents[3] / "deploy" / "sample" / "gold.json"
OF_WORDS = ("PERSON", "CLIENT", "EMAIL_ADDRESS", "ADDRESS")
KEYS = [bytes([number]) * 32 for number in range(20)]


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
