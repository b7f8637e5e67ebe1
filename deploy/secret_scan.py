"""Look for passwords, keys and tokens in what is committed: `python -m deploy.secret_scan [PATH ...]`.

Prints where each is, never what it is, and asks no server whether it works. `deploy/known_secrets.toml` has what only looks like a secret.
"""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from detect_secrets.core.scan import scan_file
from detect_secrets.settings import default_settings

from deploy.locks import ROOT

KNOWN = ROOT / "deploy" / "known_secrets.toml"
VERIFIES = "detect_secrets.filters.common.is_ignored_due_to_verification_policies"


@dataclass
class Known:
    """Lines of some files that are not secrets."""

    paths: tuple[str, ...]
    line: re.Pattern[str]
    reason: str
    used: bool = field(default=False, compare=False)

    def covers(self, path: str, line: str) -> bool:
        """Tell whether this is such a line, and remember that there is one."""
        covered = any(fnmatch(path, pattern) for pattern in self.paths) and self.line.search(line) is not None
        self.used = self.used or covered
        return covered


@dataclass(frozen=True)
class KnownSecrets:
    """`deploy/known_secrets.toml`."""

    skipped: tuple[str, ...]
    quiet: tuple[tuple[str, frozenset[str]], ...]
    known: tuple[Known, ...]

    def skips(self, path: str) -> bool:
        """Tell whether a file is not read."""
        return any(fnmatch(path, pattern) for pattern in self.skipped)

    def allows(self, path: str, line: str, kind: str) -> bool:
        """Tell whether a finding is known not to be a secret."""
        if any(fnmatch(path, pattern) and kind in kinds for pattern, kinds in self.quiet):
            return True
        # Every entry that covers the line counts as used.
        covering = [known for known in self.known if known.covers(path, line)]
        return bool(covering)


def load_rules(path: Path = KNOWN) -> KnownSecrets:
    """Read the rules."""
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    known = tuple(Known(tuple(entry["paths"]), re.compile(entry["line"]), entry["reason"]) for entry in data["known"])
    quiet = tuple((entry["path"], frozenset(entry["kinds"])) for entry in data["quiet"])
    return KnownSecrets(tuple(entry["path"] for entry in data["skipped"]), quiet, known)


def committed_files() -> list[str]:
    """The files that git has."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def find_secrets(paths: Iterable[str], rules: KnownSecrets, root: Path = ROOT) -> Iterator[tuple[str, int, str]]:
    """Path, line and kind of each passage that looks like a secret and is not known."""
    with default_settings() as settings:
        settings.filters.pop(VERIFIES, None)
        for path in paths:
            if rules.skips(path) or not (root / path).is_file():
                continue
            secrets: list[Any] = list(scan_file(str(root / path)))
            lines = (root / path).read_text(encoding="utf-8", errors="replace").split("\n") if secrets else []
            for secret in secrets:
                if not rules.allows(path, lines[secret.line_number - 1], secret.type):
                    yield path, secret.line_number, secret.type


def main() -> int:
    """Scan; return the exit code."""
    rules, paths = load_rules(), sys.argv[1:]
    findings = list(find_secrets(paths or committed_files(), rules))
    for path, line, kind in findings:
        print(f"{path}:{line}: {kind}: remove it and change it where it was valid, or explain it in {KNOWN.name}")
    unused = [known for known in rules.known if not known.used] if not paths else []
    for known in unused:
        print(f"{KNOWN.name}: nothing matches {known.line.pattern!r} in {', '.join(known.paths)}: remove it")
    return 1 if findings or unused else 0


if __name__ == "__main__":
    sys.exit(main())
