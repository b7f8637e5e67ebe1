"""The documentation leads somewhere: links, paths, lengths and versions."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = [
    ROOT / name
    for name in subprocess.check_output(["git", "ls-files", "*.md"], cwd=ROOT, text=True).split()
    if not name.startswith("deploy/sample/")
]
HOW_TO = sorted((ROOT / "docs" / "how-to").glob("add-*.md"))
LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
PATH = re.compile(r"`((?:services|tailor|proto|deploy|tests|docs|k8s|bench)/[\w./-]+)`")
MAX_README_LINES = 120


def anchors(page: Path) -> set[str]:
    """The ids that headings get."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), link
        assert not anchor or anchor in anchors(file), link


@pytest.mark.parametrize("page", HOW_TO, ids=lambda page: page.stem)
def test_a_how_to_names_existing_files_and_has_both_examples(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    missing = [path for path in PATH.findall(text) if "NAME" not in path and not (ROOT / path).exists()]
    assert not missing
    assert re.search(r"(#|//) good", text) and re.search(r"(#|//) bad", text)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name == "README.md"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_a_readme_is_at_most_120_lines(page: Path) -> None:
    assert len(page.read_text(encoding="utf-8").splitlines()) <= MAX_README_LINES


def test_the_changelog_names_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f"## [{version}] - " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
