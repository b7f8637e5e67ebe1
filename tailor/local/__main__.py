"""The supervisor's process: `python -m tailor.local STATE_DIR`, started by `tailor up`."""

import argparse
import fcntl
import os
import sys
import time
from pathlib import Path

from tailor.local.guard import run_guarded
from tailor.local.layout import SERVICES, Layout

ATTEMPTS = 10


def main() -> int:
    """Run the supervisor in the background, unless another one holds the state directory's lock."""
    parser = argparse.ArgumentParser(prog="tailor.local")
    parser.add_argument("state_dir", type=Path)
    parser.add_argument("--only", action="append", default=[], help="a component to run; by default, all")
    parser.add_argument("--service", action="append", default=[], metavar="NAME=MODULE")
    parser.add_argument("--python-path", action="append", default=[], type=Path)
    arguments = parser.parse_args()
    layout = Layout(arguments.state_dir.resolve())
    lock = os.open(layout.lock_file, os.O_RDWR | os.O_CREAT, 0o600)
    if not _acquire(lock):
        return 0
    if os.fork() != 0:
        # The caller continues at once; the child keeps the lock.
        return 0
    services = dict(pair.split("=", 1) for pair in arguments.service) or {name: f"services.{name}" for name in SERVICES}

    def run() -> None:
        from tailor.local.supervisor import supervise

        supervise(layout, services, tuple(arguments.only), tuple(arguments.python_path))

    return run_guarded(run)


def _acquire(lock: int) -> bool:
    for _ in range(ATTEMPTS):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # Another process may hold it for a moment, only to test whether it is free.
            time.sleep(0.1)
        else:
            return True
    return False


if __name__ == "__main__":
    sys.exit(main())
