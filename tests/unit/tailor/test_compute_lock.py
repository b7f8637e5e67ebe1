"""A lock taken in turns."""

import fcntl
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from tailor.compute_lock import ComputeLock

HOLDER = """
import sys, time
from pathlib import Path
from tailor.compute_lock import ComputeLock
print("here", flush=True)
lock = ComputeLock(Path(sys.argv[1]))
lock.acquire()
print("taken", flush=True)
time.sleep(60)
"""


class Taker:
    """Takes a lock in a thread, and says when it has it."""

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        self._lock = ComputeLock(path)
        self.has_it = threading.Event()
        self._thread = threading.Thread(target=self._take, args=(shared,), daemon=True)
        self._thread.start()

    def _take(self, shared: bool) -> None:
        self._lock.acquire(shared=shared)
        self.has_it.set()

    def release(self) -> None:
        """Give it back."""
        self._thread.join(5)
        self._lock.release()


def _see_that_somebody_waits(path: Path) -> None:
    with path.open("rb") as file:
        for _ in range(500):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            fcntl.flock(file, fcntl.LOCK_UN)
            time.sleep(0.01)
    raise AssertionError("nobody waits")


def test_many_share_it_or_one_has_it_alone(tmp_path: Path) -> None:
    one, other = ComputeLock(tmp_path / "lock"), ComputeLock(tmp_path / "lock")
    one.acquire(shared=True)
    other.acquire(shared=True)
    alone = Taker(tmp_path / "lock")
    assert not alone.has_it.wait(0.1)
    one.release()
    assert not alone.has_it.is_set()
    other.release()
    assert alone.has_it.wait(5)
    reader = Taker(tmp_path / "lock", shared=True)
    assert not reader.has_it.wait(0.1)
    alone.release()
    assert reader.has_it.wait(5)


def test_who_waits_goes_before_who_gives_it_back_and_takes_it_again(tmp_path: Path) -> None:
    lock = ComputeLock(tmp_path / "lock")
    for shared in (True, False) * 20:
        lock.acquire()
        waiting = Taker(tmp_path / "lock", shared=shared)
        _see_that_somebody_waits(tmp_path / "lock.waiting")
        lock.release()
        again = Taker(tmp_path / "lock")
        assert waiting.has_it.wait(5) and not again.has_it.is_set()
        waiting.release()
        assert again.has_it.wait(5)
        again.release()


def test_who_was_stopped_as_it_waits_stops_nobody(tmp_path: Path) -> None:
    lock = ComputeLock(tmp_path / "lock")
    lock.acquire()
    stopped = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "lock")], stdout=subprocess.PIPE)
    assert stopped.stdout is not None and stopped.stdout.readline() == b"here\n"
    _see_that_somebody_waits(tmp_path / "lock.waiting")
    stopped.send_signal(signal.SIGSTOP)
    giving = threading.Thread(target=lock.release, daemon=True)
    giving.start()
    giving.join(5)
    assert not giving.is_alive()
    stopped.kill()
    stopped.wait()
    stopped.stdout.close()


def test_a_killed_holders_turn_is_over(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "lock")], stdout=subprocess.PIPE)
    assert holder.stdout is not None and [holder.stdout.readline() for _ in range(2)] == [b"here\n", b"taken\n"]
    waiting = Taker(tmp_path / "lock")
    assert not waiting.has_it.wait(0.1)
    holder.kill()
    holder.wait()
    holder.stdout.close()
    assert waiting.has_it.wait(5)
