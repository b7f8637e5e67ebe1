"""What the policies of laws do to a text, with the real language model."""

import pytest

from services.anonymization.anonymizer import TextAnonymizer
from services.anonymization.policy.policy_file import parse_policy
from services.anonymization.recognise.analyzer import Analyzer
from services.anonymization.surrogates.surrogates import Surrogates
from tests.analyzers import load_english
from tests.unit.anonymization.fakes import MemoryVault

pytestmark = pytest.mark.integration

# The identifiers of 45 CFR 164.514(b)(2)(i) with a text that has each; (Q) names photographs, which are not text.
IDENTIFIERS = {
    "A names": ("Patient Sarah Jenkins was seen by Dr Ngozi Okafor.", ("Jenkins", "Okafor")),
    "B geography": ("She lives at 12 Oak Street, Dallas, TX 75201.", ("Oak Street", "Dallas", "75201")),
    "C dates": ("Admitted on 3 March 2021, born on 11 May 1936.", ("3 March", "11 May")),
    "C ages": ("A woman, aged 93, was admitted.", ("93",)),
    "D telephone": ("Call her on (214) 555-0134 please.", ("555-0134",)),
    "E fax": ("Fax the form to (214) 555-0199 today.", ("555-0199",)),
    "F mail": ("Write to sarah.jenkins@clinic.example today.", ("sarah", "jenkins")),
    "G social security": ("Her SSN is 536-22-8726, as filed.", ("536-22-8726",)),
    "H medical record": ("See MRN: 0048213 in the archive.", ("0048213",)),
    "I health plan": ("Her Member ID: XK 12345678 has lapsed.", ("12345678",)),
    "J account": ("Pay from IBAN GB82 WEST 1234 5698 7654 32 this month.", ("1234 5698",)),
    "K licence": ("The doctor's DEA: AB1234563 is on file.", ("AB1234563",)),
    "L vehicle": ("The driver's licence plate AB12 CDE was noted.", ("AB12 CDE",)),
    "M serial number": ("The pump with serial number: HX-449120-B was replaced.", ("449120",)),
    "L vehicle number": ("The car, VIN 1HGCM82633A004352, was noted.", ("1HGCM82633A004352",)),
    "M device": ("The monitor 00:1B:44:11:3A:B7 was replaced.", ("3A:B7",)),
    "N personal url": (
        "See https://clinic.example/patients/sarah-jenkins for it.",
        ("clinic.example/patients", "jenkins"),
    ),
    "N url": ("The form is at www.clinic.example/forms, on page 2.", ("clinic.example",)),
    "O ip address": ("The portal was opened from 203.0.113.77 twice.", ("203.0.113.77",)),
    "P biometric": ("We took her fingerprints at the desk.", ("fingerprints",)),
    "R other": ("Her badge is HL-EMP-004417 now.", ("004417",)),
}
STATEMENTS = {
    "ethnic origin": ("Her parents are of Turkish descent.", "Turkish"),
    "political opinion": ("He is a member of the Green Party and voted Labour.", "Green Party"),
    "religion": ("My colleague is a practising Catholic.", "Catholic"),
    "trade union": ("She joined the union in May.", "joined the union"),
    "genetic data": ("Her BRCA1 mutation is known.", "BRCA1"),
    "biometric data": ("We took his fingerprints at the gate.", "fingerprints"),
    "health": ("The employee was diagnosed with multiple sclerosis.", "sclerosis"),
    "sexual orientation": ("Tom said that he is openly gay.", "gay"),
    "criminal record": ("He pleaded guilty in 2019.", "pleaded guilty"),
}


@pytest.fixture(scope="module")
def analyzer() -> Analyzer:
    return load_english()


def anonymize(analyzer: Analyzer, policy: str, text: str) -> str:
    own = analyzer.with_policy(parse_policy(f'extends = "{policy}"\n'.encode()), cache_size=0)
    return TextAnonymizer(own, Surrogates(MemoryVault(), own.lexicon, b"s" * 32)).anonymize((text,)).texts[0]


@pytest.mark.parametrize("identifier", IDENTIFIERS)
def test_safe_harbor_removes_each_of_its_identifiers(analyzer: Analyzer, identifier: str) -> None:
    text, values = IDENTIFIERS[identifier]
    shown = anonymize(analyzer, "hipaa-safe-harbor", text)
    assert not [value for value in values if value in shown], shown


def test_safe_harbor_keeps_years_states_ages_and_health(analyzer: Analyzer) -> None:
    text = "Seen in Texas in 2021, aged 41, and diagnosed with type 2 diabetes."
    assert anonymize(analyzer, "hipaa-safe-harbor", text) == text


@pytest.mark.parametrize("policy", ["default", "gdpr-article-9", "ccpa"])
@pytest.mark.parametrize("statement", STATEMENTS)
def test_special_categories_are_masked(analyzer: Analyzer, policy: str, statement: str) -> None:
    text, value = STATEMENTS[statement]
    shown = anonymize(analyzer, policy, text)
    assert value not in shown, shown


def test_article_9_makes_quasi_identifiers_coarser(analyzer: Analyzer) -> None:
    shown = anonymize(
        analyzer, "gdpr-article-9", "A man aged 47 made the claim on 3 March 2021. His postcode: SW1A 1AA."
    )
    assert "3 March" not in shown and "March 2021" in shown and "40-49" in shown and "1AA" not in shown


def test_californian_sensitive_information_is_masked_and_the_rest_replaced(analyzer: Analyzer) -> None:
    shown = anonymize(analyzer, "ccpa", "Sarah Jenkins (SSN 536-22-8726) has the card 4111 1111 1111 1111.")
    assert "Jenkins" not in shown and "[NATIONAL_ID]" in shown and "[CREDIT_CARD]" in shown
