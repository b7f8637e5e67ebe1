"""The files of a release that a lock may install, with their SHA-256 as the package index gives them.

The index is that of pip's own configuration; uv lists its files.
"""

import ast
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from packaging.tags import compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

from deploy.locks import Pin

UV = Path(sys.executable).parent / "uv"
# Linux with glibc, on the two processors that have wheels; the sets for every platform take all files.
LINUX = re.compile(r"(many)?linux(_\d+_\d+|\d+|)_(x86_64|aarch64)")


def index_options(listing: str | None = None) -> list[str]:
    """uv's option for the index that pip's configuration names; without one, both take the same by themselves."""
    if listing is None:
        command = [sys.executable, "-m", "pip", "config", "list"]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    settings = dict(line.split("=", 1) for line in listing.splitlines() if "=" in line)
    for section in (":env:", "install", "global"):
        if value := settings.get(f"{section}.index-url"):
            return ["--default-index", str(ast.literal_eval(value))]
    return []


def list_files(pins: Iterable[Pin], python: str) -> dict[str, dict[str, str]]:
    """File names and SHA-256 of every release, by `name==version`, as the index gives them.

    Raises:
        SystemExit: if the index has a file without a SHA-256.
    """
    files: dict[str, dict[str, str]] = {}
    waiting = {pin.release: pin for pin in pins}
    while waiting:
        # One resolution has one version of a package.
        batch = {pin.name: pin for pin in waiting.values()}
        waiting = {release: pin for release, pin in waiting.items() if batch[pin.name] is not pin}
        files |= read_files(resolve_files(sorted(map(str, batch.values())), python))
    return files


def resolve_files(pins: list[str], python: str) -> str:
    """uv's listing (PEP 751) of these releases."""
    with tempfile.TemporaryDirectory() as text:
        directory = Path(text)
        (directory / "pins.in").write_text("\n".join(pins), encoding="utf-8")
        command = [UV, "pip", "compile", "--quiet", "--universal", "--no-deps", "--python-version", python]
        options = ["--format", "pylock.toml", "--output-file", "pylock.toml", *index_options(), "pins.in"]
        subprocess.run([*map(str, command), *options], cwd=directory, check=True)
        return (directory / "pylock.toml").read_text(encoding="utf-8")


def read_files(text: str) -> dict[str, dict[str, str]]:
    """Read a listing.

    Raises:
        SystemExit: if a file has no SHA-256.
    """
    files: dict[str, dict[str, str]] = {}
    for package in tomllib.loads(text)["packages"]:
        key = f"{canonicalize_name(package['name'])}=={package['version']}"
        entries = [*package.get("wheels", ()), *([package["sdist"]] if "sdist" in package else [])]
        for entry in entries:
            name = PurePosixPath(unquote(urlsplit(entry["url"]).path)).name
            digest = entry.get("hashes", {}).get("sha256")
            if digest is None:
                raise SystemExit(f"The index gives no SHA-256 of {name}: name one that does in PIP_INDEX_URL.")
            files.setdefault(key, {})[name] = digest
    return files


def choose_files(
    files: Mapping[str, str], pythons: Iterable[str], *, source_only: bool, any_platform: bool
) -> dict[str, str]:
    """The files that one of these Pythons may install: wheels, or the source distribution of a package without any."""
    if source_only:
        return {name: digest for name, digest in files.items() if name.endswith(".tar.gz")}
    supported = {pair for python in pythons for pair in interpreters(python)}
    return {
        name: digest
        for name, digest in files.items()
        if name.endswith(".whl") and fits(name, supported, any_platform=any_platform)
    }


def fits(name: str, supported: set[tuple[str, str]], *, any_platform: bool) -> bool:
    """Tell whether a wheel is for one of these interpreters and for a platform of the lock."""
    return any(
        (tag.interpreter, tag.abi) in supported
        and (any_platform or tag.platform == "any" or LINUX.fullmatch(tag.platform) is not None)
        for tag in parse_wheel_filename(name)[3]
    )


def interpreters(python: str) -> set[tuple[str, str]]:
    """Interpreter and ABI of every wheel that CPython of this version installs."""
    version = tuple(int(part) for part in python.split("."))
    name = f"cp{version[0]}{version[1]}"
    tags = [
        *cpython_tags(version, abis=[name], platforms=["any"]),
        *compatible_tags(version, interpreter=name, platforms=["any"]),
    ]
    return {(tag.interpreter, tag.abi) for tag in tags}
