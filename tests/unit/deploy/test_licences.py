"""Every locked package has a licence that is allowed or excepted with a reason, and the page of notices is up to date."""

import pytest

from deploy.licences import NOTICES, UnknownLicence, is_allowed, is_expression, licence_of, load_rules, render
from deploy.locks import Metadata, load_lock, load_metadata, load_sets

RULES = load_rules()
METADATA = load_metadata()
SETS = load_sets()


def package(**licence: object) -> Metadata:
    """The metadata of a package with this licence."""
    return Metadata("", (), ("3.11",), {}, licence)


@pytest.mark.parametrize("name", [*SETS.sets, "pip"])
def test_every_package_of_a_lock_has_a_licence_that_is_allowed_or_excepted(name: str) -> None:
    for pin in load_lock(name):
        licence = licence_of(pin.release, METADATA[pin.release], RULES)
        assert is_expression(licence), (pin.release, licence)
        assert is_allowed(pin.name, licence, RULES), f"{pin.release} has the licence {licence}"


def test_every_exception_has_a_reason_and_is_still_needed() -> None:
    strict = load_rules()
    locked = {release.partition("==")[0]: release for release in METADATA}
    for entry in strict.exceptions:
        assert len(entry.reason) > 40
        for name in entry.packages:
            licence = licence_of(locked[name], METADATA[locked[name]], RULES)
            assert any(wanted in licence for wanted in entry.licences), (name, licence)
            assert not is_allowed("another", licence, RULES), name


def test_every_licence_that_was_read_is_of_a_locked_package_that_does_not_tell_it_itself() -> None:
    locked = {release.partition("==")[0]: release for release in METADATA}
    bare = load_rules().__class__(RULES.allowed, RULES.names, {}, RULES.exceptions)
    for name, licence in RULES.read.items():
        assert name in locked, f"{name} is not locked"
        try:
            own = licence_of(locked[name], METADATA[locked[name]], bare)
        except UnknownLicence:
            continue
        assert own != licence, f"{name} tells its licence itself"


def test_a_package_that_does_not_tell_its_licence_is_named_with_what_to_do() -> None:
    for fields in (
        {},
        {"text": "BSD", "classifiers": ["License :: OSI Approved :: BSD License"]},
        {"text": "Copyright 2018 Somebody"},
    ):
        with pytest.raises(UnknownLicence, match=r"thing==1 .*licences\.toml"):
            licence_of("thing==1", package(**fields), RULES)


def test_a_licence_is_taken_from_expression_name_and_classifier() -> None:
    assert licence_of("thing==1", package(expression="MIT OR GPL-2.0-only"), RULES) == "MIT OR GPL-2.0-only"
    assert licence_of("thing==1", package(text="Apache 2.0"), RULES) == "Apache-2.0"
    assert licence_of("thing==1", package(classifiers=["License :: OSI Approved :: MIT License"]), RULES) == "MIT"


def test_a_choice_needs_one_allowed_licence_and_a_sum_all() -> None:
    assert is_allowed("thing", "MIT OR GPL-2.0-only", RULES)
    assert not is_allowed("thing", "MIT AND GPL-2.0-only", RULES)
    assert not is_allowed("thing", "GPL-3.0-only", RULES)
    assert not is_allowed("thing", "LGPL-3.0-only", RULES)
    assert is_allowed("psycopg", "LGPL-3.0-only", RULES)


def test_the_set_for_a_processor_has_nothing_proprietary() -> None:
    for pin in load_lock("cpu"):
        assert "LicenseRef-NVIDIA" not in licence_of(pin.release, METADATA[pin.release], RULES), pin


def test_the_notices_are_up_to_date_and_name_every_package() -> None:
    text = NOTICES.read_text(encoding="utf-8")
    assert text == render(SETS, METADATA, RULES), "run python -m deploy.licences"
    for name in (*SETS.sets, "pip"):
        for pin in load_lock(name):
            assert f"| {pin.name} | {pin.version} | " in text
