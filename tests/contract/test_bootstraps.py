"""A bootstrap chooses and connects, in functions that one reads at a glance."""

import ast
from pathlib import Path

import pytest

SERVICES = Path(__file__).parents[2] / "services"
MAX_LINES = 60
# A bootstrap of a part, such as `review_bootstrap.py`, stands next to the service's.
FILES = sorted(SERVICES.glob("*/*bootstrap.py"))


def functions(path: Path) -> dict[str, int]:
    """The lines of each function and class at the top level of a module."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in body if isinstance(node, kinds)}


def test_every_service_has_a_bootstrap_that_builds_it() -> None:
    services = {path.parent.name for path in SERVICES.glob("*/__main__.py")}
    assert len(services) == 8
    assert services == {
        path.parent.name for path in FILES if path.name == "bootstrap.py" and "build" in functions(path)
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_bootstrap_has_short_functions(path: Path) -> None:
    long = {name: lines for name, lines in functions(path).items() if lines > MAX_LINES}
    assert not long, f"Move a part to another function or file: {long}"
