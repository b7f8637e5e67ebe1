"""A class name has one meaning in the whole house, and a module's name one within it; those that still have several are listed and may only
become fewer."""

import ast
from collections import defaultdict
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIST = Path(__file__).with_name("duplicate_names.txt")
MODULES = Path(__file__).with_name("duplicate_modules.txt")
FOLDERS = ("tailor", "services", "deploy", "bench")
GENERATED = ROOT / "tailor" / "api"
# Our fixed words for a thing that each service has one of, in the module of that name.
ONE_PER_SERVICE = {"Settings": "settings.py", "Consumers": "consumers.py"}
# Our fixed files: to know one is to know all.
FIXED_FILES = {
    "__init__", "__main__", "bootstrap", "consumers", "domain", "handlers", "ports", "rpc", "settings", "wire",
    "sql", "tables", "env",
}  # fmt: skip


@cache
def class_homes() -> dict[str, list[str]]:
    """The modules that define each public class at their top level, by its name."""
    homes = defaultdict(list)
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.is_relative_to(GENERATED):
                continue
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and not is_fixed(node.name, path):
                    homes[node.name].append(str(path.relative_to(ROOT)))
    return dict(homes)


def is_fixed(name: str, path: Path) -> bool:
    return ONE_PER_SERVICE.get(name) == path.name and path.parent.parent == ROOT / "services"


def duplicates() -> list[str]:
    """The names that several modules define, sorted."""
    return sorted(name for name, paths in class_homes().items() if len(paths) > 1)


@cache
def module_homes() -> dict[str, list[str]]:
    """The modules of each name but the fixed ones."""
    homes = defaultdict(list)
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            is_generated = path.is_relative_to(GENERATED) or path.parent.name == "versions"
            if not is_generated and path.stem not in FIXED_FILES:
                homes[path.stem].append(str(path.relative_to(ROOT)))
    return dict(homes)


def duplicate_modules() -> list[str]:
    """The names of modules that occur in several subpackages, sorted."""
    return sorted(name for name, paths in module_homes().items() if len(paths) > 1)


def read_list(path: Path = LIST) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_no_new_class_name_has_two_meanings() -> None:
    homes = class_homes()
    new = {name: homes[name] for name in duplicates() if name not in read_list()}
    assert not new, f"Rename one of each: {new}"


def test_the_list_has_no_name_that_is_unique_by_now() -> None:
    unique = set(read_list()) - set(duplicates())
    assert not unique, f"Remove from {LIST.name}: {sorted(unique)}"


def test_the_list_is_sorted_and_has_no_repetition() -> None:
    assert read_list() == sorted(set(read_list()))


def test_no_new_module_name_stands_in_two_rooms() -> None:
    homes = module_homes()
    new = {name: homes[name] for name in duplicate_modules() if name not in read_list(MODULES)}
    assert not new, f"Say what each is: {new}"


def test_the_list_of_modules_has_no_name_that_is_unique_by_now() -> None:
    unique = set(read_list(MODULES)) - set(duplicate_modules())
    assert not unique, f"Remove from {MODULES.name}: {sorted(unique)}"
    assert read_list(MODULES) == sorted(set(read_list(MODULES)))
