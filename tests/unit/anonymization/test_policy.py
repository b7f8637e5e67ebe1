"""A policy is either accepted as a whole or rejected field by field; the policies of laws, and citations that stay as they are."""

import base64
import hashlib
import re
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from services.anonymization.domain import ENTITY_TYPES, SPECIAL_CATEGORIES, Action
from services.anonymization.policy.pattern_check import parse_checked_policy
from services.anonymization.policy.policy_file import (
    CITATIONS,
    DEFAULT,
    NAMED,
    load_policy,
    parse_policy,
    policy_names,
    read_citations,
)
from services.anonymization.settings import Settings
from services.anonymization.surrogates.generalisation import find, generalise
from tailor.errors import InvalidArgument
from tailor.keys import decode_keys
from tailor.values import Labels

LABELLED = """
[types]
PERSON = "surrogate"
MONEY = "keep"
[[rules]]
labels = { department = ["people", "legal"], confidentiality = "restricted" }
types = { PERSON = "mask", MONEY = "generalise" }
[[rules]]
labels = { department = "people" }
types = { MONEY = "mask" }
"""


def violations(source: str) -> dict[str, str]:
    with pytest.raises(InvalidArgument) as refused:
        parse_policy(source.encode())
    assert refused.value.reason == "INVALID_POLICY"
    return refused.value.field_violations


def with_types(source: str) -> dict[str, str]:
    return violations('[types]\nPERSON = "surrogate"\n' + source)


def test_the_default_policy_is_valid_and_identified_by_its_digest() -> None:
    policy = load_policy()
    assert policy.action("PERSON") is Action.SURROGATE and policy.action("SOMETHING_NEW") is Action.MASK
    assert policy.digest == hashlib.sha256(DEFAULT.read_bytes()).hexdigest()


def test_the_documented_policy_is_valid() -> None:
    page = (Path(__file__).parents[3] / "docs" / "anonymization" / "policy.md").read_text(encoding="utf-8")
    policy = parse_policy(page.partition("```toml\n")[2].partition("```")[0].encode())
    assert policy.action("PERSON", Labels("", "people", "restricted")) is Action.MASK and policy.codes["CONTRACT"]


@pytest.mark.parametrize(
    ("labels", "person", "money"),
    [
        (Labels("wiki", "people", "restricted"), Action.MASK, Action.GENERALISE),
        (Labels("wiki", "legal", "restricted"), Action.MASK, Action.GENERALISE),
        (Labels("wiki", "people", "internal"), Action.SURROGATE, Action.MASK),
        (Labels("wiki", "sales", "restricted"), Action.SURROGATE, Action.KEEP),
        (Labels(), Action.SURROGATE, Action.KEEP),
    ],
)
def test_the_first_rule_for_the_labels_decides(labels: Labels, person: Action, money: Action) -> None:
    policy = parse_policy(LABELLED.encode())
    assert (policy.action("PERSON", labels), policy.action("MONEY", labels)) == (person, money)


def test_a_type_is_only_kept_if_no_rule_needs_it() -> None:
    policy = parse_policy(LABELLED.encode())
    assert not policy.keeps("MONEY") and not policy.keeps("PERSON")
    assert parse_policy(b'[types]\nMONEY = "keep"').keeps("MONEY")


def test_names_every_wrong_field_at_once() -> None:
    wrong = violations(
        """
colour = 1
[types]
PERSON = "hide"
[[rules]]
labels = { source = "Wiki Pages", team = "x" }
[generalise]
DATE_TIME = "day"
MONEY = [100, 10]
AGE = 1
[codes]
CONTRACT = ["(", "x*"]
[deny]
PERSON = "Okafor"
"""
    )
    assert wrong == {
        "colour": "is unknown; known fields are types, rules, generalise, codes, deny, allow",
        "types.PERSON": "must be 'surrogate', 'mask', 'generalise' or 'keep'",
        "rules[0].labels.source[0]": "must be a label: 1 to 64 of a-z, 0-9 and '-'",
        "rules[0].labels.team": "is unknown; known fields are source, department, confidentiality",
        "rules[0].types": "is missing",
        "generalise.DATE_TIME": "must be 'month' or 'year'",
        "generalise.MONEY": "must be whole amounts above 0 in ascending order, such as [1000, 10000]",
        "generalise.AGE": 'must be a whole number from 2 to 50, or "90+"',
        "codes.CONTRACT[0]": "is not a regular expression: missing ), unterminated subpattern at character 0",
        "codes.CONTRACT[1]": "matches the empty text; it must match at least one character",
        "deny.PERSON": "must be a valid list",
    }


def test_rejects_actions_that_a_type_cannot_have() -> None:
    wrong = violations('[types]\nPERSON = "generalise"\nMONEY = "surrogate"\nNRP = "surrogate"\nPERSN = "mask"')
    assert wrong["types.PERSON"].startswith("cannot be generalised")
    assert wrong["types.MONEY"] == "has no surrogates; use generalise, mask or keep"
    assert wrong["types.NRP"] == "has no surrogates; use mask or keep"
    assert (
        wrong["types.PERSN"].startswith("is an unknown type; known types are ACCOUNT_NUMBER, ")
        and "[codes]" in wrong["types.PERSN"]
    )


def test_rejects_a_rule_that_never_applies() -> None:
    wrong = with_types(
        """
[[rules]]
labels = { department = ["people", "legal"] }
types = { PERSON = "mask" }
[[rules]]
labels = { department = "legal", source = "wiki" }
types = { PERSON = "keep", CLIENT = "mask" }
"""
    )
    assert list(wrong) == ["rules[1].types.PERSON"]
    assert wrong["rules[1].types.PERSON"].startswith("never applies: rules[0] comes first")


def test_rejects_rules_that_contradict_each_other() -> None:
    rule = '[[rules]]\nlabels = {{ source = "wiki" }}\ntypes = {{ PERSON = "{}" }}\n'
    wrong = with_types(rule.format("mask") + rule.format("keep"))
    assert wrong == {
        "rules[1].types.PERSON": "contradicts rules[0], which has mask for the same labels; keep one of the two"
    }


def test_rejects_rules_without_labels_or_types() -> None:
    wrong = with_types(
        '[[rules]]\nlabels = {}\ntypes = { PERSON = "mask" }\n[[rules]]\nlabels = { source = "w" }\ntypes = {}\n'
    )
    assert set(wrong) == {"rules[0].labels", "rules[1].types"}


def test_rejects_contradicting_lists_without_repeating_a_name() -> None:
    wrong = violations(
        """
[types]
PERSON = "surrogate"
CLIENT = "keep"
[allow]
terms = ["Harrow & Lindqvist"]
patterns = ["Okafor [A-Z]\\\\w+"]
[deny]
PERSON = ["harrow & lindqvist", "Okafor Group", "Ward"]
CLIENT = ["Ward"]
[codes]
contract = ["C-\\\\d+"]
"""
    )
    assert set(wrong) == {"deny.PERSON[0]", "deny.PERSON[1]", "deny.CLIENT[0]", "deny.CLIENT", "codes.contract"}
    assert not any(name in text for text in wrong.values() for name in ("Okafor", "Ward", "indqvist"))


def test_reports_invalid_toml_and_a_missing_file(tmp_path: Path) -> None:
    assert violations("types = ")["policy"].startswith("is not TOML: ")
    with pytest.raises(InvalidArgument, match="TAILOR_POLICY_FILE"):
        load_policy(tmp_path / "none.toml")


def test_names_wrong_values_and_malformed_fields_together() -> None:
    wrong = violations(
        """
[types]
PERSON = "hide"
MONEY = "surrogate"
CONTRACT = "keep"
[codes]
CONTRACT = ["("]
[deny]
CLIENT = 3
[generalise]
AGE = 1
"""
    )
    assert set(wrong) == {"types.PERSON", "types.MONEY", "codes.CONTRACT[0]", "deny.CLIENT", "generalise.AGE"}


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


ENDLESS = "(a|a)+$"
ALMOST = "a" * 60 + "!"
# Long enough to start a process on a busy machine.
SECONDS = 8.0


@pytest.mark.parametrize(
    ("source", "field", "seconds"),
    [
        (f"[types]\n[codes]\nCONTRACT = ['{ENDLESS}']\n", "codes.CONTRACT[0]", SECONDS),
        (f"[types]\n[allow]\npatterns = ['fine', '{ENDLESS}']\n", "allow.patterns[1]", SECONDS),
        (f"[types]\n[deny]\nPERSON = ['{ALMOST}']\n[allow]\npatterns = ['{ENDLESS}']\n", "policy", 2.0),
    ],
)
def test_names_a_pattern_that_does_not_end(source: str, field: str, seconds: float) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_checked_policy(source, [ALMOST], seconds)
    assert set(refused.value.field_violations) == {field}


def test_reports_other_problems_as_usual() -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_checked_policy('[types]\nPERSON = "hide"\n', ["text"])
    assert set(refused.value.field_violations) == {"types.PERSON"}


def test_the_default_policys_patterns_end_on_a_long_text() -> None:
    text = "The Board of the Harrow Group and the Risk Committee met in Leeds under Regulation (EU) 2016/679. " * 2_000
    assert parse_checked_policy(DEFAULT.read_text(encoding="utf-8"), [text[:200_000]]) == load_policy()


KEY, OLD_KEY = (base64.b64encode(letter * 32).decode() for letter in (b"a", b"b"))


def test_previous_keys_are_newest_first() -> None:
    settings = Settings(
        quarantine_key=SecretStr(KEY), vault_key=SecretStr(KEY), vault_previous_keys=SecretStr(f"{OLD_KEY}, {KEY}")
    )
    assert settings.vault_keys == (b"a" * 32, [b"b" * 32, b"a" * 32])
    assert decode_keys(SecretStr("")) == []


@pytest.mark.parametrize("keys", ["short", f"{KEY},short", base64.b64encode(b"a" * 16).decode()])
def test_rejects_an_invalid_key_without_showing_it(keys: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(quarantine_key=SecretStr(KEY), vault_key=SecretStr(KEY), vault_previous_keys=SecretStr(keys))
    assert "short" not in str(refused.value) and KEY not in str(refused.value)
