"""Files that start a stack of their own, or share the stores, are listed, so that at most two stacks run at once."""

import re
from pathlib import Path

from tests.conftest import OWN_STACK, SHARED_STORES

ROOT = Path(__file__).parents[2]
STARTS = re.compile(r"\b(?:stack\.up|run_stack)\(")
SHARES = re.compile(r"\bstores: Stores\b")


def files_with(pattern: re.Pattern[str]) -> set[str]:
    """The files of tests, outside of `tests/e2e`, whose code the pattern is found in."""
    paths = (ROOT / "tests" / "integration").rglob("test_*.py")
    return {str(path.relative_to(ROOT)) for path in paths if pattern.search(path.read_text(encoding="utf-8"))}


def test_every_file_that_starts_a_stack_runs_after_the_others_that_do() -> None:
    assert files_with(STARTS) <= {*OWN_STACK, *SHARED_STORES}


def test_every_file_that_uses_the_shared_stores_runs_after_the_others_that_do() -> None:
    assert files_with(SHARES) - set(OWN_STACK) <= set(SHARED_STORES)


def test_no_listed_file_is_missing() -> None:
    assert [path for path in (*OWN_STACK, *SHARED_STORES) if not (ROOT / path).is_file()] == []
