"""The policies of laws: what each masks and keeps, and citations that stay as they are."""

import re

import pytest

from services.anonymization.domain import ENTITY_TYPES, SPECIAL_CATEGORIES, Action
from services.anonymization.policy.policy_file import (
    CITATIONS,
    NAMED,
    load_policy,
    parse_policy,
    policy_names,
    read_citations,
)
from services.anonymization.surrogates.generalisation import find, generalise
from tailor.errors import InvalidArgument

CITED = (
    "45 CFR 164.514", "45 C.F.R. § 164.514(b)(2)", "42 U.S.C. § 1320d-6", "Regulation (EU) 2016/679", "Directive 95/46/EC", "Data Protection Act 2018 s. 7",
    "Data Protection Act 2018", "s. 7", "Cal. Civ. Code § 1798.140", "Public Law 104-191", "Pub. L. No. 104-191", "S.I. 2003/2426", "Article 9(2)(a)", "recital 26",
    "Verordnung (EU) 2016/679", "88 Fed. Reg. 23506", "ISO 27001:2022",
)  # fmt: skip


@pytest.mark.parametrize("citation", CITED)
def test_citations_of_american_british_and_european_law_are_allowed(citation: str) -> None:
    text = f"It follows from {citation} that nothing changes."
    start = text.index(citation)
    stretches = load_policy().find_allowed(text)
    assert any(first <= start and start + len(citation) <= last for first, last in stretches)


def test_every_citation_has_a_source_and_allows_no_name() -> None:
    assert CITATIONS.read_text(encoding="utf-8").count("source = ") == sum(map(len, read_citations().values()))
    text = (
        "Ngozi Okafor of Vanterpool Logistics BV called +44 20 7946 0112 about invoice 2019/4417 from 12 High Street."
    )
    for pattern in (pattern for patterns in read_citations().values() for pattern in patterns):
        assert re.search(pattern, text) is None, pattern


@pytest.mark.parametrize("name", policy_names())
def test_every_named_policy_is_valid_and_decides_every_type(name: str) -> None:
    policy = parse_policy(f'extends = "{name}"\n'.encode())
    assert {*ENTITY_TYPES} <= {*policy.actions}
    assert re.search(r"\d{3}", (NAMED / f"{name}.toml").read_text(encoding="utf-8")) if name != "default" else True


def test_each_provision_of_a_law_stands_beside_what_follows_from_it() -> None:
    hipaa, article_9, ccpa = (
        (NAMED / f"{name}.toml").read_text(encoding="utf-8") for name in ("hipaa-safe-harbor", "gdpr-article-9", "ccpa")
    )
    assert {letter for letter in "ABCDEFGHIJKLMNOPQR" if f"({letter})" in hipaa} == set("ABCDEFGHIJKLMNOPQR")
    for words in (
        "racial or ethnic origin",
        "political opinions",
        "religious or philosophical beliefs",
        "trade union membership",
        "genetic data",
        "biometric data",
        "data concerning health",
        "sex life or sexual orientation",
        "criminal convictions and offences",
    ):
        assert words in article_9
    assert {part for part in "ABCDEFGI" if f"(v)(1)({part})" in ccpa} == set("ABCEFGI") and "(ae)(2)" in ccpa
    for text in (hipaa, article_9, ccpa):
        assert "https://" in text


def test_special_categories_are_masked_by_default() -> None:
    assert {load_policy().action(kind) for kind in SPECIAL_CATEGORIES} == {Action.MASK}


def test_safe_harbor_keeps_only_the_year_of_dates_and_the_first_digits_of_zip_codes() -> None:
    policy = parse_policy(b'extends = "hipaa-safe-harbor"\n')
    coarse = policy.coarseness
    assert [generalise("DATE_TIME", "3 March 2021", coarse), generalise("DATE_OF_BIRTH", "03/11/1936", coarse)] == [
        "2021",
        "1936",
    ]
    assert [generalise("AGE", age, coarse) for age in ("41", "89", "90", "104")] == ["41", "89", "90+", "90+"]
    text = "Seen in TX 75201-4410, ZIP code 03601 and SW1A 1AA; the E2E 4GB test ran."
    findings = sorted(find(text, {"POSTCODE"}), key=lambda finding: finding.start)
    codes = [text[finding.start : finding.end] for finding in findings]
    assert codes == ["75201-4410", "03601", "SW1A 1AA"]
    assert [generalise("POSTCODE", code, coarse) for code in codes] == ["752", "000", "SW"]
    assert policy.action("HEALTH") is Action.KEEP and policy.action("MEDICAL_RECORD") is Action.MASK
    assert any(re.search(form, "MRN: 0048213") for form in policy.codes["MEDICAL_RECORD"])


def test_ages_from_ninety_are_joined_in_every_policy() -> None:
    assert [generalise("AGE", age, load_policy().coarseness) for age in ("34", "89", "95")] == ["30-39", "80-89", "90+"]


def test_a_policy_may_extend_a_named_one() -> None:
    own = b'extends = "gdpr-article-9"\n[types]\nNRP = "keep"\n[generalise]\nMONEY = [500, 5000]\n[allow]\nterms = ["Kestrel"]\n'
    policy = parse_policy(own)
    assert policy.action("NRP") is Action.KEEP and policy.action("DATE_TIME") is Action.GENERALISE
    assert policy.coarseness.money_bands == (500, 5000) and policy.coarseness.date_time == "month"
    assert policy.allow_terms[0] == "Kestrel" and policy.allow_patterns
    assert policy.digest != parse_policy(own.replace(b"gdpr-article-9", b"ccpa")).digest


def test_an_unknown_policy_is_named_with_the_known_ones() -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_policy(b'extends = "hippa"\n')
    assert refused.value.field_violations["extends"].endswith(
        "known policies are default, ccpa, gdpr-article-9, hipaa-safe-harbor"
    )
