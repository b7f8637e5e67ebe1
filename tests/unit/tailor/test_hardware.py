"""The memory of processes, and how their threads wait."""

import os
import subprocess
import sys

import pytest

from tailor.hardware import SPINS, peak_resident_bytes, share_cores

MEBIBYTE = 2**20


def test_peak_counts_what_was_freed() -> None:
    before = peak_resident_bytes(os.getpid())
    block = bytearray(os.urandom(MEBIBYTE)) * 64
    del block
    assert peak_resident_bytes(os.getpid()) >= before
    assert before > MEBIBYTE


def test_peak_of_a_child_does_not_begin_with_its_parents_memory() -> None:
    block = bytearray(b"x") * (200 * MEBIBYTE)
    program = "from tailor.hardware import peak_resident_bytes; import os; print(peak_resident_bytes(os.getpid()))"
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 0 < int(child.stdout) < len(block) // 2


def test_process_that_has_ended_has_none() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert peak_resident_bytes(child.pid) == 0


def test_threads_sleep_soon_unless_the_operator_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    share_cores()
    assert os.environ["GOMP_SPINCOUNT"] == str(SPINS)
    monkeypatch.setenv("GOMP_SPINCOUNT", "5")
    share_cores()
    assert os.environ["GOMP_SPINCOUNT"] == "5"
