"""The lock by which callers go first, and the one that covers memory."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tailor.compute_lock import TURN_SECONDS, ComputeLock, memory_lock
from tests.waiting import wait_until

HOLD = """
with ComputeLock(path).hold():
    print("here", flush=True)
    time.sleep(600)
"""
LOOK = """
lock = ComputeLock(path)
print("here", flush=True)
while True:
    lock.is_held()
"""
FILL = """
with memory_lock(path):
    print("here", flush=True)
    time.sleep(600)
"""


@contextmanager
def process(program: str, path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs a program with the lock's path, and has got to where it says so."""
    head = "import sys, time\nfrom pathlib import Path\nfrom tailor.compute_lock import ComputeLock, memory_lock\n"
    command = [sys.executable, "-c", f"{head}path = Path(sys.argv[1])\n{program}", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None and child.stdout.readline() == b"here\n"
            yield child
        finally:
            child.kill()


def test_the_lock_is_held_until_the_last_holder_releases_it(tmp_path: Path) -> None:
    first, second, training = (ComputeLock(tmp_path / "lock") for _ in range(3))
    assert not training.is_held()
    with first.hold(), second.hold():
        with first.hold():
            assert training.is_held()
        assert training.is_held()
    assert not training.is_held()
    with first.hold():
        assert training.is_held()
        assert not first.is_held()


def test_threads_that_hold_it_at_once_leave_it_held_or_free_as_they_should(tmp_path: Path) -> None:
    inference, training = ComputeLock(tmp_path / "lock"), ComputeLock(tmp_path / "lock")
    missed: list[int] = []

    def answer() -> None:
        for number in range(200):
            with inference.hold():
                if not training.is_held():
                    missed.append(number)

    threads = [threading.Thread(target=answer) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not missed and not training.is_held()


class Clock:
    """A clock that only moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def lock(self, path: Path) -> ComputeLock:
        return ComputeLock(path, lambda: self.now, self.sleep)


def test_inference_waits_for_the_end_of_a_turn_and_then_has_as_long_for_itself(tmp_path: Path) -> None:
    clock = Clock()
    inference, training = (clock.lock(tmp_path / "lock") for _ in range(2))
    inference.await_turn()
    assert clock.now == 1000
    training.take_turn()
    inference.await_turn()
    assert clock.now == 1000 + TURN_SECONDS
    training.take_turn()
    inference.await_turn()
    assert clock.now == 1000 + TURN_SECONDS
    clock.now += TURN_SECONDS
    training.take_turn()
    inference.await_turn()
    assert clock.now == 1000 + 3 * TURN_SECONDS


def test_a_turn_from_before_a_restart_of_the_machine_is_ignored(tmp_path: Path) -> None:
    before, after = Clock(), Clock()
    before.lock(tmp_path / "lock").take_turn()
    after.now = 10
    after.lock(tmp_path / "lock").await_turn()
    assert after.now == 10


def test_a_killed_holder_releases_the_lock(tmp_path: Path) -> None:
    training = ComputeLock(tmp_path / "lock")
    with process(HOLD, tmp_path / "lock") as holder:
        assert training.is_held()
        holder.kill()
        holder.wait(60)
        assert not training.is_held()


def test_a_suspended_worker_that_looks_at_the_lock_keeps_no_caller_waiting(tmp_path: Path) -> None:
    inference = ComputeLock(tmp_path / "lock")
    with process(LOOK, tmp_path / "lock") as looker:
        for _ in range(20):
            looker.send_signal(signal.SIGSTOP)
            with inference.hold():
                pass
            looker.send_signal(signal.SIGCONT)


def test_only_one_process_holds_the_memory_lock_and_a_killed_one_releases_it(tmp_path: Path) -> None:
    acquired = threading.Event()

    def fill() -> None:
        with memory_lock(tmp_path / "lock"):
            acquired.set()

    with process(FILL, tmp_path / "lock") as holder:
        waiting = threading.Thread(target=fill)
        waiting.start()
        assert not acquired.wait(0.1)
        holder.kill()
        wait_until(acquired.is_set, description="the memory lock of a killed process")
        waiting.join(60)


def test_the_memory_lock_holds_up_no_call(tmp_path: Path) -> None:
    inference, training = ComputeLock(tmp_path / "lock"), ComputeLock(tmp_path / "lock")
    with memory_lock(tmp_path / "lock"):
        assert not training.is_held()
        with inference.hold():
            assert training.is_held()
