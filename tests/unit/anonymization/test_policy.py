"""A policy is either accepted as a whole or rejected field by field."""

import hashlib
from pathlib import Path

import pytest

from services.anonymization.domain import Action
from services.anonymization.policy.policy_file import DEFAULT, load_policy, parse_policy
from tailor.errors import InvalidArgument
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
