"""A service's Protocols live in a `ports.py`, and are inherited by what implements them."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("tailor", "services", "deploy", "bench")
GENERATED = ROOT / "tailor" / "api"


@dataclass(frozen=True)
class Class:
    """A class of the code base: where it is, its bases by name, and its own methods."""

    name: str
    path: Path
    bases: tuple[str, ...]
    methods: tuple[str, ...]

    @property
    def is_protocol(self) -> bool:
        return "Protocol" in self.bases


@cache
def classes() -> list[Class]:
    paths = (path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")))
    return [found for path in paths if not path.is_relative_to(GENERATED) for found in read_classes(path)]


def read_classes(path: Path) -> Iterator[Class]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef):
            methods = (part.name for part in node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef))
            yield Class(node.name, path.relative_to(ROOT), tuple(map(base_name, node.bases)), tuple(methods))


def base_name(base: ast.expr) -> str:
    """`Protocol` of `Protocol`, `typing.Protocol` and `Protocol[T]`."""
    plain = base.value if isinstance(base, ast.Subscript) else base
    return plain.attr if isinstance(plain, ast.Attribute) else plain.id if isinstance(plain, ast.Name) else ""


def protocols() -> list[Class]:
    return [found for found in classes() if found.is_protocol]


def implemented() -> set[str]:
    """The names of the classes that a class that is not a Protocol inherits, directly or through others."""
    bases = {found.name: found.bases for found in classes()}
    names, new = set[str](), {base for found in classes() if not found.is_protocol for base in found.bases}
    while new:
        names |= new
        new = {base for name in new for base in bases.get(name, ())} - names
    return names


def test_a_protocol_of_a_service_lives_in_a_ports_file() -> None:
    elsewhere = [f"{found.path}: {found.name}" for found in protocols() if found.path.parts[0] == "services"]
    assert not [place for place in elsewhere if "/ports.py:" not in place]


def test_a_protocol_is_inherited_by_what_implements_it() -> None:
    assert {found.name: str(found.path) for found in protocols() if found.name not in implemented()} == {}
