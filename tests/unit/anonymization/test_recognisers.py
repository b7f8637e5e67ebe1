"""What each recogniser finds, and leaves alone."""

import pytest

from services.anonymization.adapters.lexicon import Lexicon
from services.anonymization.adapters.mentions import Mentions
from services.anonymization.adapters.policy import load_policy
from services.anonymization.adapters.recognisers.addresses import Addresses
from services.anonymization.adapters.recognisers.organisations import Organisations
from services.anonymization.adapters.recognisers.patterns import Patterns
from services.anonymization.adapters.recognisers.people import People
from services.anonymization.domain import Finding, merge

ENGLISH = frozenset(
    "the report owner signs control envelope street lane stewardship principal consultant engagement renegotiate supply water".split()
)


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return Lexicon.load(ENGLISH)


def values(text: str, findings: list[Finding]) -> list[tuple[str, str]]:
    return [(found.entity_type, text[found.start : found.end]) for found in merge(findings)]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("write to s.kervadec@tarrault.example.", "EMAIL_ADDRESS", "s.kervadec@tarrault.example"),
        ("pay into GB33 BUKB 2020 1555 5555 55 today", "IBAN", "GB33 BUKB 2020 1555 5555 55"),
        ("pay into DE89370400440532013000.", "IBAN", "DE89370400440532013000"),
        ("card 4111 1111 1111 1111 was", "CREDIT_CARD", "4111 1111 1111 1111"),
        ("card 3782 822463 10005 was", "CREDIT_CARD", "3782 822463 10005"),
        ("from 203.0.113.84.", "IP_ADDRESS", "203.0.113.84"),
        ("number JG 10 37 59 A,", "NATIONAL_ID", "JG 10 37 59 A"),
        ("number 078-05-1120,", "NATIONAL_ID", "078-05-1120"),
        ("number 90031512348,", "NATIONAL_ID", "90031512348"),
        ("call +44 20 7946 0112 now", "PHONE_NUMBER", "+44 20 7946 0112"),
        ("call +1 212-555-0146 now", "PHONE_NUMBER", "+1 212-555-0146"),
        ("call +49 30 901820 37 now", "PHONE_NUMBER", "+49 30 901820 37"),
        ("call +33 1 99 00 41 08 now", "PHONE_NUMBER", "+33 1 99 00 41 08"),
        ("call 020 7031 3000 now", "PHONE_NUMBER", "020 7031 3000"),
        ("born 30/08/1995 in", "DATE_OF_BIRTH", "30/08/1995"),
        ("date of birth: 3 November 1996", "DATE_OF_BIRTH", "3 November 1996"),
        ("card HL-EMP-20417,", "EMPLOYEE_CODE", "HL-EMP-20417"),
        ("project HL-2025-068.", "PROJECT_CODE", "HL-2025-068"),
    ],
)
def test_finds_values_with_a_form(text: str, kind: str, value: str) -> None:
    policy = load_policy()
    assert values(text, Patterns(policy.codes, policy.deny).find(text)) == [(kind, value)]


@pytest.mark.parametrize(
    "text",
    [
        "card 4111 1111 1111 1112",
        "account DE89370400440532013001",
        "version 1.2.3.4000",
        "on 3 November 1996 we met",
        "£12,500 of 41,120 pallets, 98 to 100 per cent",
        "Regulation (EU) 2016/679, Article 32",
        "ISO 9001:2015, clause 8.4",
    ],
)
def test_leaves_what_only_looks_like_one(text: str) -> None:
    policy = load_policy()
    assert Patterns(policy.codes, policy.deny).find(text) == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("files on Ms Okafor, who", "Okafor"),
        ("believe Herr Volkmar Tietz.", "Volkmar Tietz"),
        ("in the name of T. Marsh.", "T. Marsh"),
        ("told our Sarah Jenkins at", "Sarah Jenkins"),
        ("signed by Pieter-Jan Claessens in", "Pieter-Jan Claessens"),
        ("asks Doortje van Aalst, who", "Doortje van Aalst"),
        ("holds Kofi Asante's key", "Kofi Asante"),
    ],
)
def test_finds_people(lexicon: Lexicon, text: str, value: str) -> None:
    assert values(text, People(lexicon).find(text)) == [("PERSON", value)]


@pytest.mark.parametrize(
    "text",
    ["The stewardship owner signs.", "Principal Consultant, Operations", "## Control envelope", "On Monday in June"],
)
def test_leaves_titles_headings_and_dates(lexicon: Lexicon, text: str) -> None:
    assert People(lexicon).find(text) == []
    assert Organisations(lexicon).find(text) == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("at Tarnbridge Borough Council, 29", "Tarnbridge Borough Council"),
        ("by Vanterpool Logistics BV owes", "Vanterpool Logistics BV"),
        ("of Voltara Cells Sp. z o.o. and", "Voltara Cells Sp. z o.o."),
        ("from Dosimatic Inc. in", "Dosimatic Inc."),
        ("to Marlow & Finch Apparel for", "Marlow & Finch Apparel"),
        ("the Klinikum Sankt Florian has", "Klinikum Sankt Florian"),
    ],
)
def test_finds_organisations(lexicon: Lexicon, text: str, value: str) -> None:
    assert ("CLIENT", value) in values(text, Organisations(lexicon).find(text))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("over 41 Quarry Lane, Tarnbridge TB4 2QN, would", "41 Quarry Lane, Tarnbridge TB4 2QN"),
        ("by hand, Town Hall, Room 212, Tarnbridge TB1 1AA.", "Town Hall, Room 212, Tarnbridge TB1 1AA"),
        ("at 18 rue des Tanneurs, 35300 Fougères.", "18 rue des Tanneurs, 35300 Fougères"),
        ("at Am Kornspeicher 2, 29525 Uelzen.", "Am Kornspeicher 2, 29525 Uelzen"),
        ("at 44 Wharf Street, Baltimore, MD 21230 and", "44 Wharf Street, Baltimore, MD 21230"),
        ("Write to\n4 Mill Road\nHalifax\nHX3 6ZT", "4 Mill Road\nHalifax\nHX3 6ZT"),
    ],
)
def test_finds_addresses_on_one_line_or_several(lexicon: Lexicon, text: str, value: str) -> None:
    assert values(text, Addresses(lexicon).find(text)) == [("ADDRESS", value)]


def test_a_value_once_found_counts_at_all_its_mentions(lexicon: Lexicon) -> None:
    text = (
        "Ngozi Okafor of Meridian Biologics Distribution Ltd signs. Okafor asks Meridian Biologics; Ngozi waits for OK."
    )
    found = [*People(lexicon).find(text), *Organisations(lexicon).find(text)]
    whole = values(text, Mentions(lexicon).complete(text, found, []))
    assert whole == [
        ("PERSON", "Ngozi Okafor"),
        ("CLIENT", "Meridian Biologics Distribution Ltd"),
        ("PERSON", "Okafor"),
        ("CLIENT", "Meridian Biologics"),
        ("PERSON", "Ngozi"),
    ]


@pytest.mark.parametrize(
    "citation",
    [
        "Regulation (EU) 2016/679, Article 32",
        "Regulation (EU) No 1169/2011, Article 21",
        "Directive (EU) 2022/2555",
        "UK Companies Act 2006, section 172",
        "Immigration, Asylum and Nationality Act 2006",
        "ISO 9001:2015, clause 8.4",
        "Harrow & Lindqvist",
    ],
)
def test_the_policy_allows_citations_and_the_house(citation: str) -> None:
    text = f"under {citation} today"
    allowed = load_policy().allowed(text)
    assert any(start <= 6 and end >= 6 + len(citation.split(",", maxsplit=1)[0]) for start, end in allowed)
