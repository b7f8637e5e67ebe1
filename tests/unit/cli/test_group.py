"""Global options may come anywhere."""

import pytest

from tailor.cli.group import hoist


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["documents", "--json"], ["--json", "documents"]),
        (["runs", "list", "--state-dir", "x", "--json"], ["--state-dir", "x", "--json", "runs", "list"]),
        (["ask", "a", "b", "--api-key=k"], ["--api-key=k", "ask", "a", "b"]),
        (["ask", "base", "--", "--json"], ["ask", "base", "--", "--json"]),
        (["documents", "--state-dir"], ["--state-dir", "documents"]),
        ([], []),
    ],
)
def test_moves_global_options_to_the_front(given: list[str], expected: list[str]) -> None:
    assert hoist(given) == expected
