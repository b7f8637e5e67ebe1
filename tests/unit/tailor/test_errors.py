"""Reasons of errors."""

import re
from pathlib import Path

import pytest

from tailor.errors import BY_CODE, HTTP_STATUSES, Code, Reason

ROOT = Path(__file__).parents[3]
PRODUCTION = [
    path
    for folder in ("tailor", "services", "deploy", "bench")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if not path.is_relative_to(ROOT / "tailor" / "api")
]


def test_reasons_are_named_like_their_values_and_sorted() -> None:
    names = [reason.name for reason in Reason]
    assert names == [reason.value for reason in Reason]
    assert names == sorted(names)


def test_code_never_makes_a_reason_from_a_literal() -> None:
    pattern = re.compile(r"""\bReason\(\s*["']""")
    assert [
        str(path.relative_to(ROOT)) for path in PRODUCTION if pattern.search(path.read_text(encoding="utf-8"))
    ] == []


@pytest.mark.parametrize("dialect", ["NO_SUCH_", "BAD_"])
def test_reasons_speak_one_dialect(dialect: str) -> None:
    assert [reason for reason in Reason if reason.startswith(dialect)] == []


def test_a_reason_of_a_newer_server_is_kept() -> None:
    assert Reason("FROM_THE_FUTURE") == "FROM_THE_FUTURE"


def test_every_code_has_an_error_and_an_http_status() -> None:
    assert set(BY_CODE) == set(HTTP_STATUSES) == set(Code)


def test_the_page_of_errors_lists_exactly_the_reasons() -> None:
    """A reason is listed as a table row or a heading that begins with its name in backticks."""
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    listed = re.findall(r"^(?:\|\s*|#+\s+|-\s+)`([A-Z][A-Z0-9_]+)`", page, re.MULTILINE)
    assert sorted(listed) == sorted(Reason)
