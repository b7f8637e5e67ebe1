"""A policy is read whole, or refused field by field."""

import hashlib
from pathlib import Path

import pytest

from services.anonymization.domain import Action
from services.anonymization.policy.policy_file import DEFAULT, load_policy, parse_policy
from tailor.errors import InvalidArgument

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


def test_the_default_policy_is_valid_and_named_by_its_digest() -> None:
    policy = load_policy()
    assert policy.action("PERSON") is Action.SURROGATE and policy.action("SOMETHING_NEW") is Action.MASK
    assert policy.digest == hashlib.sha256(DEFAULT.read_bytes()).hexdigest()


def test_the_readmes_policy_is_valid() -> None:
    readme = (DEFAULT.parents[1] / "README.md").read_text(encoding="utf-8")
    policy = parse_policy(readme.partition("```toml\n")[2].partition("```")[0].encode())
    assert policy.action("PERSON", ("", "people", "restricted")) is Action.MASK and policy.codes["CONTRACT"]


@pytest.mark.parametrize(
    ("labels", "person", "money"),
    [
        (("wiki", "people", "restricted"), Action.MASK, Action.GENERALISE),
        (("wiki", "legal", "restricted"), Action.MASK, Action.GENERALISE),
        (("wiki", "people", "internal"), Action.SURROGATE, Action.MASK),
        (("wiki", "sales", "restricted"), Action.SURROGATE, Action.KEEP),
        (("", "", ""), Action.SURROGATE, Action.KEEP),
    ],
)
def test_the_first_rule_for_the_labels_decides(labels: tuple[str, str, str], person: Action, money: Action) -> None:
    policy = parse_policy(LABELLED.encode())
    assert (policy.action("PERSON", labels), policy.action("MONEY", labels)) == (person, money)


def test_a_type_that_some_document_needs_is_looked_for() -> None:
    policy = parse_policy(LABELLED.encode())
    assert not policy.keeps("MONEY") and not policy.keeps("PERSON")
    assert parse_policy(b'[types]\nMONEY = "keep"').keeps("MONEY")


def test_every_wrong_field_is_named_at_once() -> None:
    found = violations(
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
    assert found == {
        "colour": "is no field here; known are types, rules, generalise, codes, deny, allow",
        "types.PERSON": "must be 'surrogate', 'mask', 'generalise' or 'keep'",
        "rules[0].labels.source[0]": "must be a label: 1 to 64 of a-z, 0-9 and '-'",
        "rules[0].labels.team": "is no field here; known are source, department, confidentiality",
        "rules[0].types": "is missing",
        "generalise.DATE_TIME": "must be 'month' or 'year'",
        "generalise.MONEY": "must be whole amounts above 0, each greater than the one before, such as [1000, 10000]",
        "generalise.AGE": "must be greater than or equal to 2",
        "codes.CONTRACT[0]": "is no regular expression: missing ), unterminated subpattern at character 0",
        "codes.CONTRACT[1]": "matches the empty text; let it match one character or more",
        "deny.PERSON": "must be a valid list",
    }


def test_actions_that_a_type_cannot_have_are_refused() -> None:
    found = violations('[types]\nPERSON = "generalise"\nMONEY = "surrogate"\nNRP = "surrogate"\nPERSN = "mask"')
    assert found["types.PERSON"].startswith("cannot be generalised")
    assert found["types.MONEY"] == "has no surrogates; use generalise, mask or keep"
    assert found["types.NRP"] == "has no surrogates; use mask or keep"
    assert (
        found["types.PERSN"].startswith("is no type; known are ACCOUNT_NUMBER, ") and "[codes]" in found["types.PERSN"]
    )


def test_a_rule_that_is_never_reached_is_refused() -> None:
    found = with_types(
        """
[[rules]]
labels = { department = ["people", "legal"] }
types = { PERSON = "mask" }
[[rules]]
labels = { department = "legal", source = "wiki" }
types = { PERSON = "keep", CLIENT = "mask" }
"""
    )
    assert list(found) == ["rules[1].types.PERSON"]
    assert found["rules[1].types.PERSON"].startswith("is never reached: rules[0] comes first")


def test_two_rules_that_contradict_each_other_are_refused() -> None:
    rule = '[[rules]]\nlabels = {{ source = "wiki" }}\ntypes = {{ PERSON = "{}" }}\n'
    found = with_types(rule.format("mask") + rule.format("keep"))
    assert found == {
        "rules[1].types.PERSON": "contradicts rules[0], which says mask for the same labels; keep one of the two"
    }


def test_rules_for_everything_or_of_nothing_are_refused() -> None:
    found = with_types(
        '[[rules]]\nlabels = {}\ntypes = { PERSON = "mask" }\n[[rules]]\nlabels = { source = "w" }\ntypes = {}\n'
    )
    assert set(found) == {"rules[0].labels", "rules[1].types"}


def test_lists_that_contradict_each_other_are_refused_without_repeating_a_name() -> None:
    found = violations(
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
    assert set(found) == {"deny.PERSON[0]", "deny.PERSON[1]", "deny.CLIENT[0]", "deny.CLIENT", "codes.contract"}
    assert not any(name in text for text in found.values() for name in ("Okafor", "Ward", "indqvist"))


def test_what_is_no_toml_or_no_file_says_so(tmp_path: Path) -> None:
    assert violations("types = ")["policy"].startswith("is not TOML: ")
    with pytest.raises(InvalidArgument, match="TAILOR_POLICY_FILE"):
        load_policy(tmp_path / "none.toml")


def test_what_is_wrong_is_named_beside_what_is_malformed() -> None:
    found = violations(
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
    assert set(found) == {"types.PERSON", "types.MONEY", "codes.CONTRACT[0]", "deny.CLIENT", "generalise.AGE"}
