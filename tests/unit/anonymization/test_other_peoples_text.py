"""Values in the forms of text that nobody here wrote, and what only looks like them."""

import time

import pytest

from services.anonymization.domain import Finding, merge
from services.anonymization.recognise.lexicon import Lexicon
from services.anonymization.recognise.recognisers.organisations import OrganisationRecogniser
from services.anonymization.recognise.recognisers.people import PersonRecogniser
from services.anonymization.recognise.recognisers.phones import PhoneRecogniser
from services.anonymization.recognise.recognisers.references import ReferenceRecogniser
from services.anonymization.recognise.recognisers.short_names import ShortNameRecogniser
from services.anonymization.recognise.recognisers.world_addresses import WorldAddressRecogniser
from services.anonymization.recognise.tokens import tokenise
from services.anonymization.recognise.truecase import Truecaser
from services.anonymization.recognise.word_votes import WordVotes

ENGLISH = frozenset(
    "the report owner sign can you ask about invoice thanks please send motor general group meet lend borrow bank company gas regional network tenant during kid family"
    " statement of witness and trust court high justice will work with is in to from by has have said agree claim number order file case note service deliver manage".split()
)


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return Lexicon.load(ENGLISH)


def values(text: str, findings: list[Finding]) -> list[str]:
    return [text[finding.start : finding.end] for finding in merge(findings, text)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (
            "send it to 37409 Paseo del Atlántico 81\n Suite 461\n Torroella de Montgrí\n Spain.",
            "37409 Paseo del Atlántico 81\n Suite 461\n Torroella de Montgrí\n Spain",
        ),
        (
            "at 8848 59 Lairg Road Apt. 888 NEWBOROUGH United Kingdom?",
            "8848 59 Lairg Road Apt. 888 NEWBOROUGH United Kingdom",
        ),
        ("is 6768 Al. Zwycięstwa 96 Suite 639 Gdynia Poland", "6768 Al. Zwycięstwa 96 Suite 639 Gdynia Poland"),
        ("in Unit 0966 Box 9091\nDPO AE 12382, or", "Unit 0966 Box 9091\nDPO AE 12382"),
        ("meet at the corner of 92 Circle Way and Paterson Pass.", "the corner of 92 Circle Way and Paterson Pass"),
        ("The office is at Ladbyvej 84.", "Ladbyvej 84"),
        ("Write to Rákóczi út 67 today", "Rákóczi út 67"),
        ("Via Nuova del Campo 85", "Via Nuova del Campo 85"),
        (
            "> 12 Calle de Alcalá 5\n> Suite 12\n> Madrid\n> Spain 28014",
            "12 Calle de Alcalá 5\n> Suite 12\n> Madrid\n> Spain 28014",
        ),
        ("My zip code is 58058-010", "58058-010"),
    ],
)
def test_finds_streets_of_many_countries(lexicon: Lexicon, text: str, value: str) -> None:
    assert values(text, WorldAddressRecogniser(lexicon).find(text)) == [value]


@pytest.mark.parametrize(
    "text",
    [
        "During 1977, the group met.",
        "On 12 May 2024 we met.",
        "74 of 210 stores run well",
        "Tenant Suite 210 is let",
        "It has 3 pumps and 4 valves.",
    ],
)
def test_ignores_dates_and_counts(lexicon: Lexicon, text: str) -> None:
    assert WorldAddressRecogniser(lexicon).find(text) == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("please call me at 9175 3554", "9175 3554"),
        ("you can call 03.91.12.17.13 after six", "03.91.12.17.13"),
        ("23 344737 office", "23 344737"),
        ("messages to 468 3505 please", "468 3505"),
        ("on my registered 404-722-5953. Could", "404-722-5953"),
        ("CALL ME AT 404-722-5953X114 NOW", "404-722-5953X114"),
        ("CALL +1-404-722-5953X114 NOW", "+1-404-722-5953X114"),
    ],
)
def test_finds_phones_by_the_words_around_them(text: str, value: str) -> None:
    assert values(text, PhoneRecogniser(("GB",)).find(text)) == [value]


@pytest.mark.parametrize("text", ["call on 12.05.2024", "reach 1 200 users", "the number 42", "contact in 2024-2025"])
def test_dates_and_counts_are_no_phones(text: str) -> None:
    assert PhoneRecogniser(("GB",)).find(text) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("originated in an application (no. 36244/06) against", ["36244/06"]),
        ("applications nos. 36244/06, 37259/06 and 12/05 were", ["36244/06", "37259/06", "12/05"]),
        ("case no. 2001/345 was", ["2001/345"]),
        ("Case No: HQ17M01234\n", ["HQ17M01234"]),
        ("[2019] EWHC 1243 (QB)", ["[2019] EWHC 1243 (QB)"]),
        ("Docket No. 12-cv-03456 was", ["12-cv-03456"]),
        ("Az.: 4 O 213/21", ["4 O 213/21"]),
        ("Our ref: KL/2231-B", ["KL/2231-B"]),
        ("BGH, VIII ZR 12/20", ["VIII ZR 12/20"]),
        ("deal no. QK-55201 with", ["QK-55201"]),
    ],
)
def test_finds_numbers_of_cases(text: str, expected: list[str]) -> None:
    assert values(text, ReferenceRecogniser().find(text)) == expected


@pytest.mark.parametrize(
    "text", ["see no. 5", "order of 12.05.2024", "in case of fire", "claim number two", "file a claim in 2024"]
)
def test_ordinary_numbers_are_no_cases(text: str) -> None:
    assert ReferenceRecogniser().find(text) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('the Regional Gas Network Company ("RGNC") pays', ["Regional Gas Network Company", "RGNC"]),
        ("AT&T and P&L", ["AT&T"]),
        ("numbers from ENAX, please", ["ENAX"]),
        ("ENAX said so", ["ENAX"]),
        ('Ngozi Okafor ("the Tenant")', []),
    ],
)
def test_finds_short_names_of_organisations(lexicon: Lexicon, text: str, expected: list[str]) -> None:
    assert values(text, ShortNameRecogniser(lexicon).find(text)) == expected


def test_a_word_in_brackets_belongs_to_the_company(lexicon: Lexicon) -> None:
    text = "United Breweries (Holdings) Limited"
    assert values(text, OrganisationRecogniser(lexicon).find(text)) == [text]


@pytest.mark.parametrize(
    ("text", "rewritten"),
    [
        (
            "can you ask gregor herrmann about the invoice? thanks",
            "can you ask Gregor Herrmann about the invoice? thanks",
        ),
        ("WITNESS STATEMENT OF GERALD ASHWORTH", "witness statement of Gerald Ashworth"),
        ("pay gb33bukb20201555555555 please", "pay GB33BUKB20201555555555 please"),
        ("ms. Okafor signs", "Ms. Okafor signs"),
        ("at 14 larkspur road, please", "at 14 Larkspur Road, please"),
    ],
)
def test_reads_small_letters_and_capitals_a_second_time(lexicon: Lexicon, text: str, rewritten: str) -> None:
    assert Truecaser(lexicon).rewrite(text) == rewritten


@pytest.mark.parametrize("text", ["Please send the report to Ngozi.", "the report will work", "it took 30 ms Okay", ""])
def test_other_texts_are_read_once(lexicon: Lexicon, text: str) -> None:
    assert Truecaser(lexicon).rewrite(text) is None


def test_a_name_in_capitals_ends_where_the_capitals_end(lexicon: Lexicon) -> None:
    text = "Between: ROSALIND THORNYCROFT Claimant and others"
    assert "ROSALIND THORNYCROFT" in values(text, PersonRecogniser(lexicon).find(text))


@pytest.mark.parametrize(
    ("text", "kind", "least", "most"),
    [
        ("We met General Motors today", "CLIENT", 0.0, 0.2),
        ("We met Voltara today", "CLIENT", 0.0, 0.0),
        ("Company", "CLIENT", 0.3, 1.0),
        ("Owner: Voltara", "PERSON", 0.5, 1.0),
    ],
)
def test_one_list_lowers_a_score_and_several_reasons_sink_it(
    lexicon: Lexicon, text: str, kind: str, least: float, most: float
) -> None:
    tokens = tokenise(text)
    first = 2 if text.startswith("We met") else 0
    last = 3 if "General" in text else first
    assert least <= WordVotes(lexicon).doubt(tokens, first, last, kind) <= most


@pytest.mark.parametrize("unit", ["Aa ", "Aa-", "1 ", "12 Aa ", "Aa, ", "no. ", '("', "AA ", "aa bb "])
def test_the_time_of_a_paragraph_is_bounded(lexicon: Lexicon, unit: str) -> None:
    text = (unit * 4_000)[:4_000]
    finders = (
        PersonRecogniser(lexicon).find, OrganisationRecogniser(lexicon).find, WorldAddressRecogniser(lexicon).find,
        ReferenceRecogniser().find, ShortNameRecogniser(lexicon).find, PhoneRecogniser(("GB",)).find, Truecaser(lexicon).rewrite,
    )  # fmt: skip
    start = time.process_time()
    for find in finders:
        find(text)
    assert time.process_time() - start < 4
