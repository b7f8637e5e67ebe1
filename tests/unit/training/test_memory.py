"""A worker's memory."""

import subprocess
import sys

import pytest

ROUND_TRIPS = """
import resource
from services.training.adapters.memory import keep_freed_memory
{keep}
def round_trip():
    bytes(memoryview(b"x" * 50_000_000))
round_trip()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    round_trip()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(keep: str) -> int:
    command = [sys.executable, "-c", ROUND_TRIPS.format(keep=keep)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_what_is_freed_is_used_again_without_new_pages() -> None:
    assert _faults("keep_freed_memory()") * 20 < _faults("")
