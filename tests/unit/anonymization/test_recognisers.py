"""The values that each recogniser finds, and lookalikes that it ignores."""

import time

import pytest

from services.anonymization.domain import Finding, merge
from services.anonymization.policy.policy_file import load_policy
from services.anonymization.recognise.lexicon import Lexicon
from services.anonymization.recognise.mentions import Mentions
from services.anonymization.recognise.recognisers.addresses import AddressRecogniser
from services.anonymization.recognise.recognisers.labelled import LabelRecogniser
from services.anonymization.recognise.recognisers.layout import LayoutRecogniser
from services.anonymization.recognise.recognisers.organisations import OrganisationRecogniser
from services.anonymization.recognise.recognisers.patterns import PatternRecogniser
from services.anonymization.recognise.recognisers.people import PersonRecogniser
from services.anonymization.recognise.recognisers.phones import PhoneRecogniser
from services.anonymization.recognise.recognisers.secrets import SecretRecogniser

ENGLISH = frozenset(
    "the report owner signs control envelope street lane stewardship principal consultant engagement renegotiate supply water".split()
)


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return Lexicon.load(ENGLISH)


def values(text: str, findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.entity_type, text[finding.start : finding.end]) for finding in merge(findings)]


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
    findings = [
        *PatternRecogniser(policy.codes, policy.deny).find(text),
        *PhoneRecogniser(("GB", "US", "DE", "FR")).find(text),
    ]
    assert values(text, findings) == [(kind, value)]


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
def test_ignores_lookalikes(text: str) -> None:
    policy = load_policy()
    assert PatternRecogniser(policy.codes, policy.deny).find(text) == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("files on Ms Okafor, who", "Okafor"),
        ("believe Herr Volkmar Tietz.", "Volkmar Tietz"),
        ("in the name of T. Marsh.", "T. Marsh"),
        ("told our Sarah Jenkins at", "Sarah Jenkins"),  # english: allow told
        ("signed by Pieter-Jan Claessens in", "Pieter-Jan Claessens"),
        ("asks Doortje van Aalst, who", "Doortje van Aalst"),
        ("holds Kofi Asante's key", "Kofi Asante"),
    ],
)
def test_finds_people(lexicon: Lexicon, text: str, value: str) -> None:
    assert values(text, PersonRecogniser(lexicon).find(text)) == [("PERSON", value)]


@pytest.mark.parametrize(
    "text",
    ["The stewardship owner signs.", "Principal Consultant, Operations", "## Control envelope", "On Monday in June"],
)
def test_ignores_titles_headings_and_dates(lexicon: Lexicon, text: str) -> None:
    assert PersonRecogniser(lexicon).find(text) == []
    assert OrganisationRecogniser(lexicon).find(text) == []


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
    assert ("CLIENT", value) in values(text, OrganisationRecogniser(lexicon).find(text))


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
    assert values(text, AddressRecogniser(lexicon).find(text)) == [("ADDRESS", value)]


def test_a_found_value_counts_at_all_its_mentions(lexicon: Lexicon) -> None:
    text = (
        "Ngozi Okafor of Meridian Biologics Distribution Ltd signs. Okafor asks Meridian Biologics; Ngozi waits for OK."
    )
    findings = [*PersonRecogniser(lexicon).find(text), *OrganisationRecogniser(lexicon).find(text)]
    whole = values(text, Mentions(lexicon).complete(text, findings, []))
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
def test_the_policy_allows_citations_and_the_companys_name(citation: str) -> None:
    text = f"under {citation} today"
    allowed = load_policy().find_allowed(text)
    assert any(start <= 6 and end >= 6 + len(citation.split(",", maxsplit=1)[0]) for start, end in allowed)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("call (972) 555-0148 ext. 12 today", "(972) 555-0148 ext. 12"),
        ("call 496.879.6094x357 today", "496.879.6094x357"),
        ("call +44 (0)1632 960 233 today", "+44 (0)1632 960 233"),
        ("ruf 0251 / 555 01 23 an", "0251 / 555 01 23"),
        ("appelez le 04 99 55 01 82 demain", "04 99 55 01 82"),
    ],
)
def test_finds_phones_with_their_extensions(text: str, value: str) -> None:
    assert values(text, PhoneRecogniser(("GB", "US", "DE", "FR")).find(text)) == [("PHONE_NUMBER", value)]


def test_numbers_of_other_regions_are_not_phones() -> None:
    assert PhoneRecogniser(("US",)).find("ref 02515550123") == []
    assert PhoneRecogniser(("DE",)).find("ref 02515550123") != []


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("NHS No: 943 476 5919,", "NATIONAL_ID", "943 476 5919"),
        ("Steuer-ID 86 095 742 719.", "NATIONAL_ID", "86 095 742 719"),
        ("number 2 55 08 14 168 025 38 is", "NATIONAL_ID", "2 55 08 14 168 025 38"),
        ("number 65 170839 J 003 is", "NATIONAL_ID", "65 170839 J 003"),
        ("at 2001:db8:85a3::8a2e:370:7334 again", "IP_ADDRESS", "2001:db8:85a3::8a2e:370:7334"),
        ("device 3c:22:fb:9a:11:0e up", "IP_ADDRESS", "3c:22:fb:9a:11:0e"),
        ("stands at 50.8225, -0.1372 now", "COORDINATES", "50.8225, -0.1372"),
        ("at 53.9496° N, 2.4617° W there", "COORDINATES", "53.9496° N, 2.4617° W"),
        ("geboren am 17.09.1938 in", "DATE_OF_BIRTH", "17.09.1938"),
        ("wurde am 11. Juni 1990 in Halle geboren", "DATE_OF_BIRTH", "11. Juni 1990"),
        ("card 588954075226 was", "CREDIT_CARD", "588954075226"),
    ],
)
def test_finds_values_of_other_countries_and_networks(text: str, kind: str, value: str) -> None:
    assert (kind, value) in values(text, PatternRecogniser({}, {}).find(text))


@pytest.mark.parametrize("text", ["at 02:14:07 we", "NHS 943 476 5918 no", "count 86095742718", "std::a::b"])
def test_ignores_numbers_with_a_wrong_checksum(text: str) -> None:
    assert PatternRecogniser({}, {}).find(text) == []


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("Passport No.: C4829177", "NATIONAL_ID", "C4829177"),
        ("Personalnummer 448120, geb.", "EMPLOYEE_CODE", "448120"),
        ("Your account number is 10485526 and", "ACCOUNT_NUMBER", "10485526"),
        ("Sort code: 20-45-77, account", "ACCOUNT_NUMBER", "20-45-77"),
        ("registration LB19 KXT.", "VEHICLE", "LB19 KXT"),
    ],
)
def test_finds_numbers_by_the_words_before_them(text: str, kind: str, value: str) -> None:
    assert (kind, value) in values(text, LabelRecogniser().find(text))


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("key AKIAIOSFODNN7EXAMPLE is", "SECRET", "AKIAIOSFODNN7EXAMPLE"),
        ("DSN postgresql://svc:h8Jk2@db3:5432/o end", "SECRET", "postgresql://svc:h8Jk2@db3:5432/o"),
        ("Temporary password: Winter!2024xy – change", "SECRET", "Winter!2024xy"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY-----",
            "SECRET",
            "-----BEGIN RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY-----",
        ),
        ("see https://p.example/users/femi.o now", "URL", "https://p.example/users/femi.o"),
        ("see https://p.example/r?token=a81bc8 now", "URL", "https://p.example/r?token=a81bc8"),
        ("publickey for mhollis from 198.51.100.23", "USERNAME", "mhollis"),
    ],
)
def test_finds_secrets_and_personal_links(text: str, kind: str, value: str) -> None:
    assert values(text, SecretRecogniser().find(text)) == [(kind, value)]


@pytest.mark.parametrize(
    "text", ["The password policy changes.", "token: limits", "see https://p.example/handbook/leave", "secret garden"]
)
def test_ignores_text_about_secrets(text: str) -> None:
    assert SecretRecogniser().find(text) == []


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Present: Gareth Pugh (chair), Aoife Brennan", ["Gareth Pugh", "Aoife Brennan"]),
        ("Attn: Thackeray\nSubject: The report", ["Thackeray"]),
        ("Dear Petrie,\n\nThe report", ["Petrie"]),
        ("Kind regards,\n\nPriya", ["Priya"]),
        ("| Name | Change |\n|---|---|\n| Nkemelu | Overtime |", ["Nkemelu"]),
        ("Kev: anyone in?", ["Kev"]),
        ("Dear Sir,\n\nDear all,\n\nSubject: The report", []),
    ],
)
def test_finds_names_by_layout(lexicon: Lexicon, text: str, names: list[str]) -> None:
    assert [value for _, value in values(text, LayoutRecogniser(lexicon).find(text))] == names


def test_a_name_counts_in_all_its_spellings(lexicon: Lexicon) -> None:
    text = "Sarah Jenkins signs. JENKINS waits, ask sarah or sjenkins; Jenkins's file, the report."
    whole = values(text, Mentions(lexicon).complete(text, PersonRecogniser(lexicon).find(text), []))
    assert [value for _, value in whole] == ["Sarah Jenkins", "JENKINS", "sarah", "sjenkins", "Jenkins"]


@pytest.mark.parametrize("unit", ["1", "-", "a.", "A. ", "1.", "Ab-", "eyJa."])
def test_time_is_linear_in_the_length(lexicon: Lexicon, unit: str) -> None:
    text = (unit * 20_000)[:20_000]
    start = time.process_time()
    for find in (PatternRecogniser({}, {}).find, SecretRecogniser().find, PersonRecogniser(lexicon).find):
        find(text)
    assert time.process_time() - start < 5
