"""A worker's memory."""

import subprocess
import sys

import pytest

LARGE = 2**30
ROUND_TRIPS = """
import resource
from tailor.hardware import keep_freed_memory
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
def test_freed_memory_is_reused_without_page_faults() -> None:
    assert _faults("keep_freed_memory()") * 20 < _faults("")


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_peak_excludes_the_memory_of_the_parent_process() -> None:
    ask = "from services.training.methods.memory import peak_bytes; print(peak_bytes())"
    large = (
        f"import subprocess, sys; held = b'x' * {LARGE}; subprocess.run([sys.executable, '-c', {ask!r}], check=True)"
    )
    printed = [
        int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for code in (ask, large)
    ]
    assert 0 < printed[1] < 1.2 * printed[0] < LARGE
