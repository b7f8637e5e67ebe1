"""Global options may come anywhere."""

import pytest

from tailor.cli.group import hoist


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["document", "list", "-o", "json"], ["-o", "json", "document", "list"]),
        (["run", "list", "--state-dir", "x", "--output=json"], ["--state-dir", "x", "--output=json", "run", "list"]),
        (["ask", "a", "b", "--api-key=k"], ["--api-key=k", "ask", "a", "b"]),
        (["ask", "base", "--", "--output=json"], ["ask", "base", "--", "--output=json"]),
        (["status", "--state-dir"], ["--state-dir", "status"]),
        ([], []),
    ],
)
def test_moves_global_options_to_the_front(given: list[str], expected: list[str]) -> None:
    assert hoist(given) == expected
