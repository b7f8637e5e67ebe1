"""Runs a synthesis in a separate process, to be killed: `python -m tests.integration.synthesis_worker DATABASE_URL ENDPOINT_URL`."""

import sys
import threading

from tailor.sql import connect
from tests.synthesis import SynthesisHouse

if __name__ == "__main__":
    database_url, endpoint_url = sys.argv[1:]
    house = SynthesisHouse(connect(database_url), endpoint_url, timeout_seconds=300, lease_seconds=8.0)
    house.runner.run_next(threading.Event())
