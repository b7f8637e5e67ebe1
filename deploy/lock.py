"""Resolve the locks under `requirements/` with uv, with the hashes of their files, and write the snapshot of their packages' metadata.

Packages come from the index of pip's own configuration. Nothing is installed. The present pins are kept where they still fit;
`--upgrade` takes the newest versions.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.locks import (
    REQUIREMENTS,
    ROOT,
    Pin,
    Sets,
    environment,
    load_lock,
    load_sets,
    lock_for,
    parse_pin,
    project_requirements,
    roots_of,
    to_metadata,
)
from deploy.wheels import choose_files, index_options, list_files

Entry = dict[str, Any]
Files = dict[str, dict[str, str]]  # file names and SHA-256 by release
EXTRA_MARKER = re.compile(r"""extra\s*==\s*["']([^"']+)["']""")
LINUX = "sys_platform == 'linux' and platform_machine == 'x86_64' and "
HEADER = """\
# {title}. Made by `make lock` from pyproject.toml and sets.toml; never edited by hand.
"""


def compile_set(sets: Sets, name: str, locks: Mapping[str, list[Pin]], *, upgrade: bool) -> list[Pin]:
    """Resolve one set for every supported Python, by the pins of the sets that it follows."""
    definition = sets.sets[name]
    extras = definition["extras"]
    constraints = locks.get(definition.get("pins_of", ""), [])
    preferences = locks.get(definition.get("prefers", ""), [])
    exemptions = [exemption for exemption in sets.exemptions if name in exemption.sets]
    bound = f"python_full_version < '3.{int(sets.pythons[-1].partition('.')[2]) + 1}'"
    universe = bound if definition.get("any_platform") else LINUX + bound
    with tempfile.TemporaryDirectory() as text:
        directory = Path(text)
        project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        (directory / "pyproject.toml").write_text(f'{project}\n[tool.uv]\nenvironments = ["{universe}"]\n')
        (directory / "README.md").touch()
        (directory / "packages.in").write_text("\n".join(definition.get("packages", ())))
        (directory / "constraints.txt").write_text("\n".join(str(pin) for pin in constraints))
        (directory / "overrides.txt").write_text("\n".join(e.take for e in exemptions if e.take))
        left_out = (line for e in exemptions if not e.take for line in e.requirements)
        (directory / "excludes.txt").write_text("\n".join(left_out))
        present = [] if upgrade or not (REQUIREMENTS / f"{name}.txt").exists() else load_lock(name)
        chosen = {pin.name: pin for pin in [*present, *preferences]}
        output = directory / "out.txt"
        output.write_text("".join(f"{pin}\n" for pin in chosen.values()))
        subprocess.run(
            [
                *(Path(sys.executable).parent / "uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate"),
                *("--universal", "--fork-strategy", "fewest", "--python-version", sets.pythons[0]),
                *("--overrides", "overrides.txt", "--excludes", "excludes.txt", "--constraints", "constraints.txt"),
                *("--output-file", "out.txt", *index_options()),
                *(["--all-extras"] if "*" in extras else [part for extra in extras for part in ("--extra", extra)]),
                *(argument for group in definition["groups"] for argument in ("--group", group)),
                *("pyproject.toml", "packages.in"),
            ],
            cwd=directory,
            check=True,
        )
        lines = output.read_text(encoding="utf-8").splitlines()
    return [parse_pin(shorten(line)) for line in lines if line and not line.startswith(("#", " "))]


def shorten(line: str) -> str:
    """Drop the parts of a marker that hold on every supported machine."""
    requirement, _, marker = line.partition(" ; ")
    parts = [part.strip() for part in marker.split(" and ")] if " or " not in marker else [marker]
    always = re.compile(
        r"python_full_version < '3\.14'|platform_machine == 'x86_64'|sys_platform == 'linux'"
        r"|(platform_python_implementation|implementation_name) != '(pypy|PyPy)'"
    )
    parts = [part for part in parts if part and not always.fullmatch(part)]
    return f"{requirement} ; {' and '.join(parts)}" if parts else requirement


def read_metadata(sets: Sets, locks: Mapping[str, list[Pin]]) -> dict[str, Entry]:
    """Ask pip for the metadata of every pin, and for which Python versions it can be installed."""
    entries: dict[str, Entry] = {}
    for pins in locks.values():
        for python in sets.pythons:
            keys = [f"{pin.name}=={pin.version}" for pin in pins if pin.applies(environment(python))]
            unknown = [key for key in keys if key not in entries or python not in entries[key]["pythons"]]
            for install in report(sets, unknown, python):
                add_metadata(entries, install, python)
    return entries


def add_metadata(entries: dict[str, Entry], install: Mapping[str, Any], python: str) -> None:
    """Add what the release for one Python says; releases of one version must agree."""
    metadata = install["metadata"]
    key = f"{canonicalize_name(metadata['name'])}=={metadata['version']}"
    requires = sorted(metadata.get("requires_dist", []))
    entry = {
        "requires_python": metadata.get("requires_python", ""),
        "requires": requires,
        "pythons": [python],
        "licence": licence_of(metadata),
        "chosen": [],
    }
    known = entries.setdefault(key, entry)
    known["chosen"].append(install["download_info"]["archive_info"]["hashes"]["sha256"])
    if known is not entry:
        known["pythons"].append(python)
    if known["requires"] != requires:
        raise SystemExit(f"The wheels of {key} differ in what they require; list them apart.")


def licence_of(metadata: Mapping[str, Any]) -> Entry:
    """The fields of a package's metadata that name its licence; some have the whole text in one."""
    lines = (metadata.get("license") or "").strip().splitlines()
    classifiers = [line for line in metadata.get("classifier", []) if line.startswith("License ::")]
    fields = {"expression": metadata.get("license_expression"), "text": lines[0][:80] if lines else ""}
    return {name: value for name, value in {**fields, "classifiers": sorted(classifiers)}.items() if value}


def add_files(sets: Sets, listed: Files, locks: Mapping[str, list[Pin]], entries: dict[str, Entry]) -> None:
    """Add the files of every release that some lock may install.

    Raises:
        SystemExit: if pip would install a file that is not among them.
    """
    wide = {pin.release for name, pins in locks.items() if is_wide(sets, name) for pin in pins}
    for release, entry in entries.items():
        source_only = release.partition("==")[0] in sets.source_only
        entry["files"] = choose_files(
            listed[release], sets.pythons, source_only=source_only, any_platform=release in wide
        )
        if unlisted := set(entry.pop("chosen")) - set(entry["files"].values()):
            raise SystemExit(
                f"pip takes a file of {release} that uv does not list ({unlisted}): compare their indexes."
            )


def report(sets: Sets, lines: list[str], python: str) -> list[Mapping[str, Any]]:
    """The files that pip would install on Linux on x86-64, with metadata and hash."""
    if not lines:
        return []
    tags = [f"manylinux_2_{minor}_x86_64" for minor in range(36, 4, -1)]
    platforms = [*tags, "manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"]
    with tempfile.TemporaryDirectory() as directory:
        source, target = Path(directory) / "pins.txt", Path(directory) / "report.json"
        source.write_text("\n".join(lines), encoding="utf-8")
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps"),
                *("--python-version", python, "--implementation", "cp"),
                *(argument for platform in platforms for argument in ("--platform", platform)),
                *("--only-binary", ":all:", "--no-binary", ",".join(sets.source_only)),
                *("--target", directory, "--report", str(target), "--requirement", str(source)),
            ],
            check=True,
        )
        installs: list[Mapping[str, Any]] = json.loads(target.read_text(encoding="utf-8"))["install"]
    return installs


def derive_cpu(sets: Sets, locks: dict[str, list[Pin]], entries: dict[str, Entry]) -> list[Pin]:
    """The pins of `cpu`: those of `cpu-index` with torch's CPU build, less what only its CUDA build requires.

    Adds the metadata of the CPU build: that of the index's build without the requirements, and with the files, that sets.toml names.
    """
    version, without = sets.torch_cpu["version"], set(sets.torch_cpu["without"])
    release = entries[f"torch=={version.partition('+')[0]}"]
    requires = [line for line in release["requires"] if canonicalize_name(Requirement(line).name) not in without]
    entries[f"torch=={version}"] = {**release, "requires": requires, "files": sets.torch_cpu["files"]}
    pins = [Pin("torch", version) if pin.name == "torch" else pin for pin in locks["cpu-index"]]
    metadata = {key: to_metadata(entry) for key, entry in entries.items()}
    reached: set[str] = set()
    for python in sets.pythons:
        reached |= lock_for(sets, "cpu", python, pins, metadata).walk(roots_of(sets, "cpu"))[0]
    return [pin for pin in pins if pin.name in reached]


def prune(entries: dict[str, Entry], locks: Mapping[str, list[Pin]]) -> dict[str, Entry]:
    """Leave out requirements of extras that nothing locked asks for, again until none is left: they ask for extras too."""
    asked: dict[str, set[str]] = {}
    lines = [line for entry in entries.values() for line in entry["requires"]]
    for requirement in [*map(Requirement, lines), *project_requirements(["*"], ["dev"])]:
        asked.setdefault(canonicalize_name(requirement.name), set()).update(requirement.extras)
    wanted = {f"{pin.name}=={pin.version}" for pins in locks.values() for pin in pins}
    pruned = {}
    for key in sorted(wanted & set(entries)):
        extras = asked.get(key.partition("==")[0], set())
        lines = [line for line in entries[key]["requires"] if may_hold(line, extras)]
        pruned[key] = {**entries[key], "requires": lines}
    return pruned if pruned == entries else prune(pruned, locks)


def may_hold(line: str, extras: set[str]) -> bool:
    """Tell whether a requirement holds always, or with one of these extras."""
    names = {canonicalize_name(name) for name in EXTRA_MARKER.findall(line)}
    return not names or bool(names & {canonicalize_name(extra) for extra in extras})


def is_wide(sets: Sets, name: str) -> bool:
    """Tell whether a lock is for every platform."""
    return name == "pip" or bool(sets.sets[name].get("any_platform"))


def write_lock(sets: Sets, name: str, pins: Iterable[Pin], listed: Files) -> None:
    """Write one lock, with the hashes of the files that its machines may install.

    Raises:
        SystemExit: if a release has no such file.
    """
    title, lines = sets.sets.get(name, {"title": "The installer's own pip"})["title"], []
    for pin in pins:
        files = choose_files(
            listed[pin.release],
            sets.pythons,
            source_only=pin.name in sets.source_only,
            any_platform=is_wide(sets, name),
        )
        if not files:
            raise SystemExit(f"The index has no file of {pin.release} for the set {name}.")
        lines.append(replace(pin, hashes=tuple(sorted(files.values()))).line(" \\\n    "))
    text = HEADER.format(title=title) + "\n".join(sorted(lines)) + "\n"
    (REQUIREMENTS / f"{name}.txt").write_text(text, encoding="utf-8")
    print(f"requirements/{name}.txt: {len(lines)} packages")


def main() -> None:
    """Write every lock and the snapshot of metadata."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions")
    upgrade = parser.parse_args().upgrade
    sets = load_sets()
    names = [name for name, definition in sets.sets.items() if "derived_from" not in definition]
    locks: dict[str, list[Pin]] = {}
    for name in sorted(names, key=lambda name: bool({"pins_of", "prefers"} & set(sets.sets[name]))):
        locks[name] = compile_set(sets, name, locks, upgrade=upgrade)
    locks["pip"] = [Pin("pip", sets.pip)]
    entries = read_metadata(sets, locks)
    listed = list_files((pin for pins in locks.values() for pin in pins), sets.pythons[0])
    add_files(sets, listed, locks, entries)
    locks["cpu"] = derive_cpu(sets, locks, entries)
    listed[f"torch=={sets.torch_cpu['version']}"] = sets.torch_cpu["files"]
    for name, pins in locks.items():
        write_lock(sets, name, pins, listed)
    text = json.dumps(prune(entries, locks), indent=1, sort_keys=True)
    (REQUIREMENTS / "metadata.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
