"""Resolve `requirements.lock` from pyproject.toml and `deploy/lock.in`, without installing anything."""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
NO_DEPS = "#: nodeps "
HEADER = """\
# Every package of every service, of the embedded stack and of the tools, pinned. Made by `make lock`; see docs/decisions/0003.
# Installed with --no-deps: pip's own settings decide which build of torch this version means.
"""


def wanted() -> tuple[list[str], list[str]]:
    """Requirements to resolve, and pins to take as they are."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    lines = (ROOT / "deploy" / "lock.in").read_text(encoding="utf-8").splitlines()
    plain = [line for line in lines if line.strip() and not line.startswith("#")]
    own = [line for line in [*project["dependencies"], *extras] if not line.startswith(project["name"])]
    return [*own, *plain], [line.removeprefix(NO_DEPS) for line in lines if line.startswith(NO_DEPS)]


def resolve(requirements: list[str]) -> list[str]:
    """Pins of all requirements together."""
    with tempfile.TemporaryDirectory() as directory:
        source, report = Path(directory) / "all.in", Path(directory) / "report.json"
        source.write_text("\n".join(requirements), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        subprocess.run([*command, "--report", str(report), "--requirement", str(source)], check=True)
        entries = [entry["metadata"] for entry in json.loads(report.read_text(encoding="utf-8"))["install"]]
    # A local version, such as torch's +cpu, is the machine's own choice.
    return [f"{normal(entry['name'])}=={entry['version'].partition('+')[0]}" for entry in entries]


def normal(name: str) -> str:
    """A package's name as PEP 503 spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> None:
    """Write the lock."""
    requirements, fixed = wanted()
    pins = sorted([*resolve(requirements), *fixed])
    (ROOT / "requirements.lock").write_text(HEADER + "\n".join(pins) + "\n", encoding="utf-8")
    print(f"{len(pins)} packages")


if __name__ == "__main__":
    main()
