"""`make test-cluster`: build a Kubernetes control plane, and run the tests of manifests, placement, rights and the launcher on it."""

import subprocess
import sys
import time

from tests.cluster.programs import build, folder
from tests.installed import Missing


def main(arguments: list[str]) -> int:
    """Returns the exit status of pytest, or 2 if a program is missing."""
    try:
        build(folder())
    except Missing as error:
        sys.stderr.write(f"{error}\n")
        return 2
    started = time.monotonic()
    command = [sys.executable, "-m", "pytest", "--cluster", "--durations=10", *(arguments or ["tests/cluster"])]
    status = subprocess.run(command, check=False).returncode
    sys.stderr.write(f"On a control plane with played nodes: {time.monotonic() - started:.0f} s.\n")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
