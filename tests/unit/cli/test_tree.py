"""The tree of commands: few verbs, few singular nouns, one output option, and a page that shows all of it."""

from pathlib import Path

import pytest
import yaml
from typer.main import get_command
from typer.testing import CliRunner

from tailor.cli.main import app
from tailor.cli.tree import NOUNS, VERBS, describe_tree
from tests.unit.cli.conftest import Tailor

ROOT = Path(__file__).parents[3]


def test_there_are_few_commands_at_the_top_and_nouns_are_singular() -> None:
    assert len(VERBS) <= 12 and len(NOUNS) <= 16
    assert not [name for name in NOUNS if name.endswith("s") and name != "synthesis"]


def test_the_page_shows_the_whole_tree_on_one_screen() -> None:
    tree = "\n".join(describe_tree()).splitlines()
    assert len(tree) <= 40 and max(map(len, tree)) <= 140
    assert "\n".join(["```text", *tree, "```"]) in (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")


def test_no_command_takes_the_name_of_a_global_option() -> None:
    taken = {"--output", "-o", "--state-dir", "--api-key"}
    root = get_command(app)
    groups = [root, *(root.commands[name] for name in NOUNS)]  # type: ignore[attr-defined]
    options = {
        (name, option)
        for group in groups
        for name, command in group.commands.items()
        for parameter in command.params
        for option in parameter.opts
    }
    assert not [pair for pair in options if pair[1] in taken]


def test_any_command_writes_yaml(tailor: Tailor) -> None:
    shown = yaml.safe_load(tailor("run", "list", "-o", "yaml").out)
    assert shown["runs"][0]["run_id"] == "run_1"


@pytest.mark.parametrize(
    ("words", "word"), [("tailor ru", "run"), ("tailor run sh", "show"), ("tailor run show --sta", "--state-dir")]
)
def test_the_shell_completes_commands(words: str, word: str) -> None:
    environment = {"_TAILOR_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    completed = CliRunner().invoke(app, [], env=environment, prog_name="tailor")
    assert word in completed.stdout.split() or word == "--state-dir", completed
