"""Every row of the threat model names a test that exists."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "security.md"
TEST = re.compile(r"`(tests/[\w./-]+\.py)::(test_\w+)`")
# What nothing stops has no test, and neither does what others must do.
WITHOUT_TESTS = {"What is protected, and against whom?", "What does not hold?", "What is left to the operator?"}
FILE = re.compile(r"`((?:services|tailor|proto|deploy|tests|k8s|requirements)/[\w./-]*)`")


def _sections() -> dict[str, list[str]]:
    sections: dict[str, list[str]] = {}
    heading = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
        sections.setdefault(heading, []).append(line)
    return sections


def _rows() -> list[tuple[str, str]]:
    """The rows of the tables, without heads, of the sections that need tests."""
    rows = []
    for heading, lines in _sections().items():
        if heading in WITHOUT_TESTS:
            continue
        for number, line in enumerate(lines):
            is_head = number + 1 < len(lines) and lines[number + 1].startswith("|---")
            if line.startswith("|") and not line.startswith("|---") and not is_head:
                rows.append((heading, line))
    return rows


@cache
def _tests_of(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize(("heading", "row"), _rows())
def test_a_row_names_tests_that_exist(heading: str, row: str) -> None:
    cells = row.strip("|").split(" | ")
    named = TEST.findall(cells[-1])
    assert named, f"{heading}: no test in {row!r}"
    missing = [f"{file}::{name}" for file, name in named if not (ROOT / file).exists() or name not in _tests_of(file)]
    assert not missing


def test_every_claim_stands_in_a_row_with_a_test() -> None:
    assert len(_rows()) > 60
    for heading, lines in _sections().items():
        # Lists may only be in the sections without tests; elsewhere there are tables, and a paragraph that leads to each.
        if heading not in WITHOUT_TESTS:
            assert not [line for line in lines if line.startswith("- ")], heading


def test_every_file_that_the_page_names_exists() -> None:
    for file in FILE.findall(PAGE.read_text(encoding="utf-8")):
        assert (ROOT / file).exists(), file


def test_the_page_names_every_kind_of_attacker() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for who in ("outsider", "publisher", "caller", "expert", "operator", "taken-over service", "neighbour"):
        assert f"| {who}" in text or f", {who} |" in text, who
