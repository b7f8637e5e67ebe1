"""`make test-changed`: run the tests that a change can break, chosen by the import graph.

What changed is what differs from the commit where this branch left BASE (by default `origin/main`, else `main`; on that branch itself, the last
commit), and what is not committed. Chosen are changed files of tests, the files of tests that import a changed module, directly or not, and
the unit tests of a changed service. Left out are tests that take long (`slow`), start a stack (`e2e`) or belong to a release: `make test` runs those.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import grimp

PACKAGES = ("tailor", "services", "bench", "deploy", "tests")
# All tests import it: a change of it needs `make test`.
SHARED = ("tests.conftest",)
# Tests that read other files than modules, by the beginning of the path.
READERS = {
    "proto/": ("tests/contract", "tests/unit/docs"),
    "docs/": ("tests/unit/docs",),
    "README.md": ("tests/unit/docs",),
    "CONTRIBUTING.md": ("tests/unit/docs",),
    "k8s/": ("tests/unit/deploy",),
    "deploy/": ("tests/unit/deploy",),
    "docker-compose.yml": ("tests/unit/deploy",),
    "requirements/": ("tests/unit/deploy",),
    "pyproject.toml": ("tests/unit/deploy",),
}
SKIPPED = "not slow and not e2e and not release and not gpu"


def changed_files(base: str) -> list[str]:
    """The files that differ from where this branch left the base, or from the last commit if it has not left it, and uncommitted ones."""
    fork, head = _git("merge-base", "HEAD", base), _git("rev-parse", "HEAD")
    since = "HEAD~1" if fork == head and not _git("status", "--porcelain") else fork
    tracked = _git("diff", "--name-only", "--no-renames", since).splitlines()
    return sorted({*tracked, *_git("ls-files", "--others", "--exclude-standard").splitlines()})


def find_base() -> str:
    """The branch that changes are compared with."""
    known = _git("branch", "--all", "--format=%(refname:short)").splitlines()
    return "origin/main" if "origin/main" in known else "main"


def choose_tests(changed: Iterable[str]) -> list[str]:
    """The files and folders of tests for these changed files, sorted."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    chosen: set[str] = set()
    for path in changed:
        chosen |= {folder for start, folders in READERS.items() if path.startswith(start) for folder in folders}
        module = module_of(path)
        if module.startswith("services."):
            # Parsers, engines and the like are imported by name.
            chosen.add(f"tests/unit/{module.split('.')[1]}")
        if module not in graph.modules or module in SHARED:
            continue
        for name in {module, *graph.find_downstream_modules(module)}:
            if name.startswith("tests.") and name.rpartition(".")[2].startswith("test_"):
                chosen.add(f"{name.replace('.', '/')}.py")
    return sorted(path for path in chosen if Path(path).exists())


def module_of(path: str) -> str:
    """The name of the module in a file; empty if the file is not a module."""
    if not path.endswith(".py"):
        return ""
    parts = PurePosixPath(path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def main(arguments: Sequence[str]) -> int:
    """Run the chosen tests. Returns the exit status of pytest, and 0 if there is nothing to run."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.changed", description="Run the tests that a change can break."
    )
    parser.add_argument("--base", default="", help="the branch or commit to compare with")
    parser.add_argument("--list", action="store_true", help="only print the chosen files")
    options = parser.parse_args(arguments)
    base = options.base or find_base()
    changed = changed_files(base)
    chosen = choose_tests(changed)
    sys.stdout.write(f"{len(changed)} changed files since {base}: {len(chosen)} files of tests.\n")
    if options.list or not chosen:
        sys.stdout.write("".join(f"{path}\n" for path in chosen))
        return 0
    started = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "--numprocesses=2", "--dist=loadscope", "-m", SKIPPED, *chosen]
    status = subprocess.run(command, check=False).returncode
    sys.stdout.write(
        f"{time.monotonic() - started:.0f} s. Slow and end-to-end tests were left out: `make test` runs them.\n"
    )
    # 5: no test was left after those that were left out.
    return 0 if status == 5 else status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
