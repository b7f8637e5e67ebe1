"""`make fuzz`: attack every reader of outside bytes for ten minutes, or as many seconds as are given.

What ends in a foreign error is written to `.tailor/fuzz/found/TARGET/`; copy it to `tests/fuzz/kept/TARGET/` when it is mended, and `make test`
tries it from then on. hypothesis keeps its own examples in `.tailor/fuzz/examples`, and tries them first in the next run.
"""

import argparse
import hashlib
import sys
import time
import traceback
from itertools import cycle
from pathlib import Path

from hypothesis.database import DirectoryBasedExampleDatabase

from tailor.logging import configure
from tests.fuzz.attack import Found, attack
from tests.fuzz.targets import TARGETS

FOLDER = Path(".tailor") / "fuzz"
BATCH, SLOW_BATCH = 200, 20


def main() -> int:
    """Attack until the time is over. Returns 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--target", choices=sorted(TARGETS), action="append", help="only this one; repeatable")
    arguments = parser.parse_args()
    configure("fuzz", "CRITICAL")
    database = DirectoryBasedExampleDatabase(FOLDER / "examples")
    targets = [TARGETS[name] for name in arguments.target or TARGETS]
    end, tried = time.monotonic() + arguments.seconds, dict.fromkeys(TARGETS, 0)
    found: set[str] = set()
    for target in cycle(targets):
        if time.monotonic() >= end or found >= {each.name for each in targets}:
            break
        if target.name in found:
            continue
        batch = SLOW_BATCH if target.slow else BATCH
        try:
            attack(target, batch, database)
        except Found as failure:
            found.add(target.name)
            _keep(target.name, failure)
        tried[target.name] += batch
    for name, count in tried.items():
        sys.stdout.write(f"{name}: {count} inputs{', found something' if name in found else ''}\n")
    return 1 if found else 0


def _keep(name: str, failure: Found) -> None:
    path = FOLDER / "found" / name / f"{hashlib.sha256(failure.data).hexdigest()[:16]}.bin"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(failure.data)
    traceback.print_exception(failure.__cause__)
    sys.stdout.write(f"{name}: {path}\n")


if __name__ == "__main__":
    sys.exit(main())
