"""A pattern that does not end is reported before it runs in the service."""

import pytest

from services.anonymization.policy.pattern_check import parse_checked_policy
from services.anonymization.policy.policy_file import DEFAULT, load_policy
from tailor.errors import InvalidArgument

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
