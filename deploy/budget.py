"""A ratchet on the size of the code: `python -m deploy.budget` counts, prints, and fails if a number is above deploy/budget.toml.

A number may fall at any time: `--write` stores the counts that fell. A number rises only with a decision page, named in deploy/budget.toml.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import typer.main

from services.anonymization.settings import Settings as Anonymization
from services.console.settings import Settings as Console
from services.evaluation.settings import Settings as Evaluation
from services.inference.settings import Settings as Inference
from services.ingestion.settings import Settings as Ingestion
from services.registry.settings import Settings as Registry
from services.synthetic.settings import Settings as Synthetic
from services.training.settings import Settings as Training
from services.training.settings import WorkerSettings
from tailor.api.events.v1 import models_pb2
from tailor.cli.main import app
from tailor.errors import Reason

ROOT = Path(__file__).parents[1]
BUDGET = Path(__file__).with_name("budget.toml")
PRODUCTION, TESTS = ("services", "tailor", "deploy"), ("tests",)
# Lines are limited in steps.
LINES = 500
SETTINGS = (
    Anonymization, Console, Evaluation, Inference, Ingestion, Registry, Synthetic, Training, WorkerSettings,
)  # fmt: skip


def main() -> int:
    """Returns 1 if a number is above its budget."""
    text = BUDGET.read_text(encoding="utf-8")
    counts = {name: count() for name, count in COUNTS.items()}
    if "--write" in sys.argv[1:]:
        text = lower(text, counts)
        BUDGET.write_text(text, encoding="utf-8")
    budget = tomllib.loads(text)["most"]
    sys.stdout.write("".join(f"{name:20} {count:>8,} of {budget[name]:>8,}\n" for name, count in counts.items()))
    problems = find_excess(budget, counts)
    sys.stdout.write("".join(f"{problem}\n" for problem in problems))
    return 1 if problems else 0


def find_excess(budget: Mapping[str, int], counts: Mapping[str, int]) -> list[str]:
    """A sentence for each number above its budget."""
    return [
        f"{name} is above deploy/budget.toml by {count - budget[name]:,}: remove as much elsewhere, or raise it with a decision page."
        for name, count in counts.items()
        if count > budget[name]
    ]


def lower(text: str, counts: Mapping[str, int]) -> str:
    """The budget's text with the numbers that fell; its comments stay. Lines keep the rest of a step, for fixes with their tests."""
    for name, most in tomllib.loads(text)["most"].items():
        count = -(-counts[name] // LINES) * LINES if name.endswith("_lines") else counts[name]
        text = re.sub(rf"(?m)^{name} = [\d_]+", f"{name} = {min(most, count):_}", text)
    return text


@cache
def list_files(folders: tuple[str, ...]) -> tuple[Path, ...]:
    """The tracked Python files of folders, without generated ones."""
    patterns = [f"{folder}/*.py" for folder in folders]
    listed = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=ROOT, check=True, capture_output=True, text=True)
    paths = (ROOT / name for name in listed.stdout.split("\0") if name and "_pb2" not in name)
    return tuple(path for path in paths if path.exists())


def count_lines(folders: tuple[str, ...]) -> int:
    """Lines with blank ones and docstrings."""
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in list_files(folders))


def _nodes(folders: tuple[str, ...]) -> Iterator[ast.AST]:
    return (node for path in list_files(folders) for node in ast.walk(_parse(path)))


@cache
def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def count_protocols() -> int:
    """Classes with Protocol among their bases."""
    bases = (base for node in _nodes(PRODUCTION) if isinstance(node, ast.ClassDef) for base in node.bases)
    return sum(_name(base) == "Protocol" for base in bases)


def count_calls(folder: str, *names: str) -> int:
    """Calls of functions or methods by their names."""
    return sum(isinstance(node, ast.Call) and _name(node.func) in names for node in _nodes((folder,)))


def _name(node: ast.expr) -> str:
    plain = node.value if isinstance(node, ast.Subscript) else node
    return plain.attr if isinstance(plain, ast.Attribute) else plain.id if isinstance(plain, ast.Name) else ""


def count_commands() -> int:
    """Commands of `tailor` that do something, in groups and at the top."""
    return sum(1 for _ in _commands(typer.main.get_command(app)))


def _commands(command: Any) -> Iterator[Any]:
    """The commands below a group, which has others by name; or the command itself."""
    children = getattr(command, "commands", None)
    if children is None:
        yield command
    else:
        yield from chain.from_iterable(map(_commands, children.values()))


def count_settings() -> int:
    """Settings of the services; one that several have counts once."""
    return len({name for settings in SETTINGS for name in settings.model_fields})


def count_rpcs() -> int:
    """RPCs of all services in proto/."""
    lines = (line for path in ROOT.glob("proto/**/*.proto") for line in path.read_text(encoding="utf-8").splitlines())
    return sum(line.lstrip().startswith("rpc ") for line in lines)


COUNTS: Mapping[str, Callable[[], int]] = {
    "production_lines": lambda: count_lines(PRODUCTION),
    "test_lines": lambda: count_lines(TESTS),
    "tables": lambda: count_calls("services", "Table"),
    "migrations": lambda: len(list(ROOT.glob("services/*/adapters/migrations/versions/*.py"))),
    "protocols": count_protocols,
    "threads": lambda: count_calls("services", "Thread", "spawn"),
    "settings": count_settings,
    "rpcs": count_rpcs,
    "error_reasons": lambda: len(Reason),
    "commands": count_commands,
    "specialist_fields": lambda: len(models_pb2.SpecialistChanged.DESCRIPTOR.fields),
}

if __name__ == "__main__":
    sys.exit(main())
