"""The tree of commands: few verbs, few singular nouns, global options anywhere, and a page that shows all of it."""

from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from tailor.cli.main import app, hoist
from tailor.cli.next_commands import to_command
from tailor.cli.tree import NOUNS, VERBS, describe_tree

ROOT = Path(__file__).parents[3]


def test_there_are_few_commands_at_the_top_and_nouns_are_singular() -> None:
    assert len(VERBS) <= 12 and len(NOUNS) <= 16
    assert not [name for name in NOUNS if name.endswith("s") and name != "synthesis"]


def test_the_page_shows_the_whole_tree_on_one_screen() -> None:
    tree = "\n".join(describe_tree()).splitlines()
    assert len(tree) <= 40 and max(map(len, tree)) <= 140
    assert "\n".join(["```text", *tree, "```"]) in (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")


def test_no_command_takes_the_name_of_a_global_option() -> None:
    root: Any = get_command(app)
    groups = [root, *(root.commands[name] for name in NOUNS)]
    parameters = (item for group in groups for command in group.commands.values() for item in command.params)
    assert not {"--output", "-o", "--state-dir", "--api-key"} & {name for item in parameters for name in item.opts}


@pytest.mark.parametrize(
    ("words", "word"), [("tailor ru", "run"), ("tailor run sh", "show"), ("tailor run show --sta", "--state-dir")]
)
def test_the_shell_completes_commands(words: str, word: str) -> None:
    environment = {"_TAILOR_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    completed = CliRunner().invoke(app, [], env=environment, prog_name="tailor")
    assert word in completed.stdout.split() or word == "--state-dir", completed


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


def test_names_the_program_as_it_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [".venv/bin/tailor", "demo"])
    assert to_command(Path(".tailor"), "build", "reports") == ".venv/bin/tailor build reports"
    monkeypatch.setattr("sys.argv", ["/usr/lib/python/main.py"])
    assert to_command(Path(".tailor"), "up") == "tailor up"


def test_quotes_arguments_and_names_another_state_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["tailor"])
    command = to_command(Path("/tmp/my state"), "ask", "reports", "Why?")
    assert command == "tailor ask reports 'Why?' --state-dir '/tmp/my state'"
