"""`make test-changed` finds the tests of a change."""

import subprocess
from pathlib import Path

import pytest

from tests.changed import changed_files, choose_tests


def test_tests_that_import_a_changed_module_through_others_are_chosen() -> None:
    chosen = choose_tests(["services/registry/rules/sample_size.py"])
    assert "tests/integration/test_judging.py" in chosen
    assert not [path for path in chosen if path.startswith(("tests/unit/inference", "tests/unit/ingestion"))]


def test_unit_tests_of_a_service_are_chosen_for_a_module_that_it_imports_by_name() -> None:
    assert choose_tests(["services/ingestion/formats/pdf.py"]) == ["tests/unit/ingestion"]


def test_files_that_tests_read_choose_their_readers() -> None:
    assert choose_tests(["docs/call.md"]) == ["tests/unit/docs"]
    assert "tests/unit/deploy" in choose_tests(["k8s/base/registry/deployment.yaml"])


def test_a_changed_test_is_chosen_and_one_that_was_removed_is_not() -> None:
    assert choose_tests(["tests/contract/test_names.py", "tests/contract/test_removed.py"]) == [
        "tests/contract/test_names.py"
    ]


def test_a_change_is_what_a_branch_and_the_working_tree_differ_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org")
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    def commit(name: str) -> None:
        (tmp_path / name).write_text(name)
        git("add", name)
        git("commit", "-m", name)

    git("init", "-b", "main")
    commit("first")
    commit("second")
    monkeypatch.chdir(tmp_path)
    # On the base itself, the last commit.
    assert changed_files("main") == ["second"]
    git("switch", "-c", "mine")
    commit("third")
    (tmp_path / "fourth").write_text("not added")
    assert changed_files("main") == ["fourth", "third"]
