"""The locked sets under `requirements/`: their pins, their packages' metadata, and what contradicts what.

`python -m deploy.locks SET EXTRA [PACKAGE ...]` prints the pins that one service's image needs, with their hashes.
"""

import json
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
REQUIREMENTS = ROOT / "requirements"
CONTINUATION = re.compile(r"\s*\\\n\s*")


@dataclass(frozen=True)
class Pin:
    """One line of a lock."""

    name: str
    version: str
    marker: Marker | None = None
    # SHA-256 of every file that the lock may install.
    hashes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.release + (f" ; {self.marker}" if self.marker else "")

    @property
    def release(self) -> str:
        """Name and version, as the snapshot of metadata has them."""
        return f"{self.name}=={self.version}"

    def line(self, separator: str = " ") -> str:
        """The line of a requirements file, with its hashes."""
        return separator.join([str(self), *(f"--hash=sha256:{digest}" for digest in self.hashes)])

    def applies(self, environment: Mapping[str, str]) -> bool:
        """Tell whether the line installs its package in this environment."""
        return self.marker is None or self.marker.evaluate(dict(environment))


@dataclass(frozen=True)
class Metadata:
    """The metadata of one released package."""

    requires_python: str
    requires: tuple[str, ...]
    # The Python versions that have a wheel; a pure source distribution has them all.
    pythons: tuple[str, ...]
    # File names and SHA-256 of all files that some lock may install.
    files: Mapping[str, str] = field(default_factory=dict)
    # The licence as the package gives it: `expression`, `text` (its first line) and `classifiers`.
    licence: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def requirements(self) -> tuple[Requirement, ...]:
        """The parsed requirements."""
        return tuple(Requirement(line) for line in self.requires)


@dataclass(frozen=True)
class Exemption:
    """Requirements of one package that some locks do not follow."""

    package: str
    requirements: tuple[str, ...]
    sets: tuple[str, ...]
    reason: str
    take: str = ""


@dataclass(frozen=True)
class Sets:
    """`requirements/sets.toml`."""

    pythons: tuple[str, ...]
    source_only: tuple[str, ...]
    pip: str
    sets: Mapping[str, Mapping[str, Any]]
    torch_cpu: Mapping[str, Any]
    exemptions: tuple[Exemption, ...]

    def exempt(self, name: str) -> frozenset[tuple[str, str]]:
        """Package and requirement of every exemption of the set."""
        return frozenset(
            (exemption.package, requirement)
            for exemption in self.exemptions
            if name in exemption.sets
            for requirement in exemption.requirements
        )


def load_sets(path: Path = REQUIREMENTS / "sets.toml") -> Sets:
    """Read the definition of the sets."""
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    exemptions = tuple(
        Exemption(
            entry["package"],
            tuple(entry["requirements"]),
            tuple(entry["sets"]),
            entry["reason"],
            entry.get("take", ""),
        )
        for entry in data["exemptions"]
    )
    return Sets(
        tuple(data["pythons"]),
        tuple(data["source_only"]),
        data["pip"],
        data["sets"],
        data["torch_cpu"],
        exemptions,
    )


def parse_pin(line: str) -> Pin:
    """Parse one line of a lock, with its hashes if it has any."""
    text, *hashes = line.split(" --hash=sha256:")
    requirement = Requirement(text)
    version = str(requirement.specifier).removeprefix("==")
    return Pin(canonicalize_name(requirement.name), version, requirement.marker, tuple(map(str.strip, hashes)))


def load_lock(name: str) -> list[Pin]:
    """Read the lock of a set."""
    text = (REQUIREMENTS / f"{name}.txt").read_text(encoding="utf-8")
    lines = CONTINUATION.sub(" ", text).splitlines()
    return [parse_pin(line) for line in lines if line and not line.startswith("#")]


def load_metadata(path: Path = REQUIREMENTS / "metadata.json") -> dict[str, Metadata]:
    """Read the snapshot of the locked packages' metadata, by `name==version`."""
    data = json.loads(path.read_text(encoding="utf-8"))
    return {pin: to_metadata(entry) for pin, entry in data.items()}


def to_metadata(entry: Mapping[str, Any]) -> Metadata:
    """Build the metadata of one entry of the snapshot."""
    return Metadata(
        entry["requires_python"],
        tuple(entry["requires"]),
        tuple(entry["pythons"]),
        entry.get("files", {}),
        entry.get("licence", {}),
    )


def environment(python: str) -> dict[str, str]:
    """The marker environment of Linux on x86-64 with the first patch release of this Python."""
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{python}.0",
        "os_name": "posix",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
        "extra": "",
    }


def active(metadata: Metadata, extra: str, environ: Mapping[str, str]) -> Iterator[Requirement]:
    """The requirements that hold with this extra; with an empty extra, those that always hold."""
    for requirement in metadata.requirements:
        always = requirement.marker is None or requirement.marker.evaluate(dict(environ))
        if extra == "":
            if always:
                yield requirement
        elif not always and requirement.marker and requirement.marker.evaluate({**environ, "extra": extra}):
            yield requirement


def project_requirements(extras: Iterable[str], groups: Iterable[str] = ()) -> list[Requirement]:
    """The requirements of this project with some extras (`*` for all) and dependency groups."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project, optional = data["project"], data["project"]["optional-dependencies"]
    lines: list[str] = list(project["dependencies"])
    names = list(optional) if "*" in extras else list(extras)
    for name in names:
        lines += optional[name]
    for group in groups:
        lines += group_lines(data["dependency-groups"], group)
    requirements = [Requirement(line) for line in lines]
    itself = [requirement for requirement in requirements if requirement.name == project["name"]]
    nested = sorted({extra for requirement in itself for extra in requirement.extras} - set(names))
    others = [requirement for requirement in requirements if requirement.name != project["name"]]
    return others + (project_requirements(nested) if nested else [])


def group_lines(groups: Mapping[str, list[Any]], name: str) -> list[str]:
    """The requirements of a dependency group and of those that it includes."""
    lines: list[str] = []
    for entry in groups[name]:
        lines += [entry] if isinstance(entry, str) else group_lines(groups, entry["include-group"])
    return lines


@dataclass(frozen=True)
class Lock:
    """The pins of a set as one Python installs them, with the metadata and the exemptions."""

    pins: Mapping[str, str]
    metadata: Mapping[str, Metadata]
    exempt: frozenset[tuple[str, str]]
    environ: Mapping[str, str]

    def missing(self, requirement: Requirement) -> str:
        """The sentence that says why the pins do not satisfy a requirement, or nothing."""
        version = self.pins.get(canonicalize_name(requirement.name))
        if version is None:
            return f"{requirement} is not locked"
        if not requirement.specifier.contains(Version(version), prereleases=True):
            return f"{requirement} contradicts the pin {version}"
        return ""

    def walk(self, roots: Iterable[Requirement]) -> tuple[set[str], list[str], set[tuple[str, str]]]:
        """Follow requirements from the roots: the packages reached, the contradictions, the exemptions used."""
        reached: set[tuple[str, str]] = set()
        problems: list[str] = []
        used: set[tuple[str, str]] = set()
        queue = [("the project", requirement) for requirement in roots]
        while queue:
            origin, requirement = queue.pop()
            name = canonicalize_name(requirement.name)
            problem = self.missing(requirement)
            if problem and (origin, name) in self.exempt:
                used.add((origin, name))
            elif problem:
                problems.append(f"{origin}: {problem}")
            if name not in self.pins:
                continue
            metadata = self.metadata[f"{name}=={self.pins[name]}"]
            for extra in ("", *sorted(requirement.extras)):
                if (name, extra) not in reached:
                    reached.add((name, extra))
                    queue += [(name, needed) for needed in active(metadata, extra, self.environ)]
        return {name for name, _ in reached}, sorted(set(problems)), used

    def wrong_pythons(self, python: str) -> list[str]:
        """Pins that this Python may not have, or has no wheel for."""
        problems = []
        for name, version in self.pins.items():
            metadata = self.metadata[f"{name}=={version}"]
            if not SpecifierSet(metadata.requires_python).contains(f"{python}.0"):
                problems.append(f"{name}=={version} requires Python {metadata.requires_python}")
            if python not in metadata.pythons:
                problems.append(f"{name}=={version} has no wheel for Python {python}")
        return problems


def lock_for(sets: Sets, name: str, python: str, pins: Iterable[Pin], metadata: Mapping[str, Metadata]) -> Lock:
    """The lock of a set as one Python installs it."""
    environ = environment(python)
    chosen = {pin.name: pin.version for pin in pins if pin.applies(environ)}
    return Lock(chosen, metadata, sets.exempt(name), environ)


def roots_of(sets: Sets, name: str) -> list[Requirement]:
    """The requirements that a set is made from."""
    definition = sets.sets[name]
    definition = sets.sets[definition.get("derived_from", name)]
    packages = [Requirement(line) for line in definition.get("packages", ())]
    return project_requirements(definition["extras"], definition["groups"]) + packages


def subset(name: str, extra: str, packages: Iterable[str]) -> list[Pin]:
    """The pins of a set that one extra needs, with further packages of the set."""
    sets, pins, metadata = load_sets(), load_lock(name), load_metadata()
    roots = project_requirements([extra]) + [Requirement(package) for package in packages]
    names: set[str] = set()
    for python in sets.pythons:
        reached, problems, _ = lock_for(sets, name, python, pins, metadata).walk(roots)
        if problems:
            raise SystemExit(f"The set {name} cannot be installed: {problems[0]}.")
        names |= reached
    return [pin for pin in pins if pin.name in names]


if __name__ == "__main__":
    print("\n".join(pin.line() for pin in subset(sys.argv[1], sys.argv[2], sys.argv[3:])))
