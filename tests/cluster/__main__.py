"""`make test-cluster`: build a Kubernetes control plane, and run the tests of manifests, placement and a training Job on it; with `--all`
also those of rights, Kueue, namespaces and everything that can happen to a Job.

Where KUBECONFIG names a cluster, those run on it that need no objects of the whole cluster.
"""

import os
import subprocess
import sys
import time

from tests.cluster.programs import build, folder
from tests.installed import Missing

CHOICES = {(): ("tests/cluster", "-m", "not release"), ("--all",): ("tests/cluster",)}


def main(arguments: list[str]) -> int:
    """Returns the exit status of pytest, or 2 if a program is missing."""
    own = os.environ.get("KUBECONFIG")
    try:
        if not own:
            build(folder())
    except Missing as error:
        sys.stderr.write(f"{error}\n")
        return 2
    started = time.monotonic()
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--cluster",
        "--durations=10",
        "-rs",
        *CHOICES.get(tuple(arguments), arguments),
    ]
    status = subprocess.run(command, check=False).returncode
    where = f"the cluster that {own} names" if own else "a control plane with played nodes"
    sys.stderr.write(f"On {where}: {time.monotonic() - started:.0f} s.\n")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
