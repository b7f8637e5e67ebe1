"""`make test-real`: fetch Apache Kafka and MinIO, and run the tests of the stores on them.

The same tests run on the embedded stores in `make test`. `--all` runs those that only a release needs, too. PostgreSQL is not fetched: the embedded stack's is the real server, from a wheel.
"""

import subprocess
import sys
import time

from tests.installed import Missing
from tests.real.fetch import fetch, folder

# Events, access, storage, and the flow end to end: without what only a release needs.
TESTS = (
    "tests/integration/test_events.py",
    "tests/integration/test_event_flow.py",
    "tests/integration/test_kafka_access.py",
    "tests/integration/test_outbox.py",
    "tests/integration/test_storage.py",
    "tests/e2e/test_access.py",
    "tests/e2e/test_flow.py",
)
# Also erasure, training's survival, several brokers, Kafka Connect, own stores, the demo and the commands of the pages.
ALL_TESTS = (
    *TESTS,
    "tests/integration/test_kafka_connect.py",
    "tests/integration/test_kafka_cluster.py",
    "tests/integration/test_own_stores.py",
    "tests/integration/test_ingestion_tombstone.py",
    "tests/e2e/test_demo.py",
    "tests/e2e/test_forgetting.py",
    "tests/e2e/test_own_stores.py",
    "tests/e2e/test_pages.py",
    "tests/e2e/test_training_survival.py",
)
# A run on experts' rankings asks nothing of the stores that the run before it did not.
SHORT = (*TESTS, "-m", "not release", "--deselect", "tests/e2e/test_flow.py::test_rankings_on_the_console_become")
CHOICES = {(): SHORT, ("--all",): ALL_TESTS}


def main(arguments: list[str]) -> int:
    """Returns the exit status of pytest, or 2 if a program is missing."""
    try:
        fetch(folder())
    except Missing as error:
        sys.stderr.write(f"{error}\n")
        return 2
    started = time.monotonic()
    command = [sys.executable, "-m", "pytest", "--stores=real", "--numprocesses=2", "--dist=loadscope"]
    command += ["--no-loadscope-reorder", "--durations=10", *CHOICES.get(tuple(arguments), arguments)]
    status = subprocess.run(command, check=False).returncode
    sys.stderr.write(f"On Apache Kafka and MinIO: {time.monotonic() - started:.0f} s.\n")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
