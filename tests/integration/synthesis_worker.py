"""Runs a synthesis in a separate process, to be killed: `python -m tests.integration.synthesis_worker DATABASE_URL ENDPOINT_URL`."""

import sys

from tailor.sql import connect
from tests.jobs import run_due
from tests.synthesis import SynthesisHouse

if __name__ == "__main__":
    database_url, endpoint_url = sys.argv[1:]
    house = SynthesisHouse(connect(database_url), endpoint_url, timeout_seconds=300)
    run_due(house.jobs)
